"""A trained model as files that others use: weights, config, model card (``mpdit export``)."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from mpdit import extensions
from mpdit.catalogue import DATASETS
from mpdit.config import RunConfig
from mpdit.data import datasets
from mpdit.data.latents import read_manifest
from mpdit.disk.identity import Identity
from mpdit.disk.rundir import RunDir, chosen_run
from mpdit.errors import ConfigError
from mpdit.extensions import copy_file
from mpdit.pretrained import CONFIG, WEIGHTS, Exported
from mpdit.sampling.sampler import load_average
from mpdit.text import shortlist

CARD = "README.md"
PICTURE = "samples.png"


def export(
    run: str,
    folder: Path,
    results: Path,
    ema_std: float | None,
    step: int | None,
    license: str | None,
    data_license: str | None,
) -> None:
    """``mpdit export``: write a run's model to a folder that does not exist yet.

    Args:
        ema_std, step: the averaged weights; None: those of the run's samples.
        license, data_license: of the weights and of the training data, for the model card.

    Raises:
        ConfigError: when the folder holds files, or the run lacks the weights.
        OSError: when the disk is full; nothing is left then.
    """
    source = chosen_run(run, results)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} already exists. Name another folder, or delete this one")
    config = source.load()
    std = config.sample.ema_std if ema_std is None else ema_std
    at = config.train.steps if step is None else step
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=parent) as aside:
        made = Path(aside, "made")
        made.mkdir()
        _write(made, source, config, std, at)
        card = model_card(source, config, std, at, license, data_license)
        (made / CARD).write_text(card, encoding="utf-8")
        made.rename(folder)
    print(f"{folder}: {WEIGHTS} (EMA width {std:g}, step {at:,}), {CONFIG}, {CARD}")


def _write(folder: Path, run: RunDir, config: RunConfig, std: float, step: int) -> None:
    """Weights, config, the extensions that the run uses, and a picture of its samples."""
    model = load_average(run, std, step, torch.device("cpu"))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o666 & ~_umask(folder))
    names, latents = run.class_names(), None
    if datasets.is_latents(config.data):
        latents = read_manifest(datasets.place(config.data)).model_copy(update={"sha256": {}})
    about = Exported(
        run=portable(config),
        ema_std=std,
        step=step,
        sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        images=run.images_by_class(),
        class_names=tuple(names) if names else None,
        latents=latents,
    )
    (folder / CONFIG).write_text(json.dumps(about.model_dump(mode="json"), indent=1))
    for extension in config.extensions:
        copy = copy_file(folder, extension)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(extensions.source_of(extension))
    if (run.samples / "grid.png").is_file():
        shutil.copyfile(run.samples / "grid.png", folder / PICTURE)


def _umask(folder: Path) -> int:
    """The bits that new files here do not get; safetensors ignores them."""
    probe = folder / ".probe"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    return ~mode & 0o666


def portable(config: RunConfig) -> dict[str, Any]:
    """The resolved config without the paths and the tools of one machine."""
    tree = config.resolved()
    tree["data"]["path"] = None
    tree["evaluate"] |= {"inception": None, "dinov2": None}
    tree["train"]["track"] = None
    if tree["train"]["start"]:
        tree["train"]["start"]["path"] = ""
    return tree


def model_card(
    run: RunDir,
    config: RunConfig,
    std: float,
    step: int,
    license: str | None,
    data_license: str | None,
) -> str:
    """README.md: fields for the hub, description of the model, its evaluation, its use."""
    row, path = DATASETS.find(config.data.name), config.data.path
    data = Path(path).name if path and row.kind == "folder" else config.data.name
    fields = {
        "library_name": "mpdit",
        # the hub's nearest: it has none for classes as labels
        "pipeline_tag": "unconditional-image-generation",
        "license": license or "unknown",
        "tags": ["diffusion", "dit", *config.model.flags],
        # a name here links to a data set of the hub
        **({} if row.kind == "folder" else {"datasets": [data]}),
    }
    flags = ", ".join(config.model.flags) or "none"
    spec, names = config.data.spec, run.class_names()
    classes = f"{spec.classes} classes" + (f": {shortlist(names, 20)}" if names else "")
    about = {
        "Model": f"{config.model.name}, {config.model.conditioning} conditioning, flags: {flags}",
        "Weights": f"EMA of relative width {std:g} after {step:,} training steps",
        "Data": f"{data}: {row.does}" + (f" ({row.source})" if row.source else ""),
        "Input": f"{spec.channels} × {spec.size} × {spec.size}, {classes}",
        "Licence of the weights": license or "not stated by who exported them",
        "Licence of the data": data_license or "not stated by who exported them",
        "Run": f"{run.name} (id {Identity.of(config).run})",
    }
    lines = ["---", yaml.safe_dump(fields, sort_keys=False).rstrip(), "---", "", f"# {run.name}"]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in about.items())]
    if (run.samples / "grid.png").is_file():
        lines += ["", f"![samples of the run]({PICTURE})"]
    lines += ["", "## How it was judged", "", *(f"- {line}" for line in _judged(run))]
    lines += ["", "## How to use it", "", "```python", "import mpdit", ""]
    lines += ['model = mpdit.load("this folder")', "images = model.sample(classes=[0], count=16)"]
    lines += ["", "from mpdit.hub import HubModel  # the same from the hub", ""]
    lines += ['model = HubModel.from_pretrained("somebody/a-model").pretrained()', "```", ""]
    return "\n".join(lines)


def _judged(run: RunDir) -> list[str]:
    """The run's own numbers, and the verdicts of its study.

    analysis is imported by its name as text: a run's code snapshot holds all that its code names.
    """
    try:
        loaded = import_module("analysis.loading.load").load_run(run)
        own = loaded.evaluations[loaded.evaluations["role"] == "run"]
        rows = zip(own["metric"], own["value"], strict=True)
        scores = [f"{metric}: {value:.4g}" for metric, value in rows]
        study = import_module("analysis").load(run.path.absolute().parent)
    except ConfigError:
        return ["The run belongs to no study."]
    return [*scores, *study.statements()]
