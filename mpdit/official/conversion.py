"""Conversion of a run of the official map-dit code into a run of mpdit.

It reads the files of the official training: ``config.yaml`` (its arguments), ``checkpoints/
<step>.pt`` ({"model": …}) and ``ema/<width>_<step>.pt`` ({"std", "t", "state_dict"}, in half
precision), with torch's safe loader only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpdit.catalogue import DATASETS, PAPERS_FLAGS, PARTS
from mpdit.config import RunConfig, make_run
from mpdit.disk.files import write_atomic
from mpdit.disk.identity import Identity
from mpdit.disk.rundir import RunDir, read_config
from mpdit.ema.power import PowerEMA, snapshot_file, write_snapshot
from mpdit.errors import ConfigError, why_unloadable
from mpdit.model import DiT
from mpdit.official import tensors
from mpdit.runtime.provenance import record_start
from mpdit.training import checkpoint
from mpdit.training.meters import Meters
from mpdit.training.optimizer import parameter_groups

State = dict[str, Tensor]

INVERTED = (
    "its EMA snapshots were made by the official code's inverted update (weight beta on the new "
    "parameters): they are nearly the raw weights, not averages of their nominal width"
)
HOLDERS = ("state_dict", "model", "ema")
"""The keys that may hold the state dict in a .pt file."""
FIXED = {"mlp_ratio": 4.0, "learn_sigma": True}
"""Official arguments for which mpdit's model supports one value only."""
TABLE_TOLERANCE = 2e-3
"""Largest difference of a stored table from mpdit's: half precision's for numbers up to 2."""
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, order=True)
class Stored:
    """One .pt file: its step, its relative width (0 for a checkpoint), where it is."""

    step: int
    std: float
    file: Path


def convert(old: Path, new: Path) -> list[str]:
    """Create the run directory ``new`` from the official run ``old``.

    Returns:
        notes for the user of the new run, one sentence each; its log.txt has them too.

    Raises:
        ConfigError: when ``old`` is not such a run, or ``new`` exists; nothing is written.
    """
    if new.exists():
        raise ConfigError(f"{new} already exists")
    if old.is_file():
        _read(old)
        raise ConfigError(f"{old} is a file, not the folder of a run")
    checkpoints, snapshots = _checkpoints(old), _snapshots(old)
    if not checkpoints and not snapshots:
        raise ConfigError(f"{old} has neither checkpoints/*.pt nor ema/*.pt")
    # The newest snapshot's step is the run's last; a checkpoint counts when it is of that step.
    last = (snapshots or checkpoints)[-1]
    newest = next((c for c in checkpoints if c.step == last.step), last)
    state = _read(newest.file)
    official = _official_config(old)
    kind = tensors.generation(state, official)
    stds = sorted({snapshot.std for snapshot in snapshots}) or [0.05]
    config = run_config(official, kind, last.step, stds)
    converter = _Converter(config, kind)
    weights = converter(newest.file, state)
    notes = [f"converted from the official code's run {old} ({kind} generation), step {last.step}"]
    if snapshots:
        notes.append(INVERTED)
    else:
        notes.append(f"it has no EMA snapshots: std{stds[0]:.3f} here is the raw weights")
    if newest.std:
        rounded = ", with time frequencies in half precision" if converter.tables else ""
        notes.append(f"no checkpoint is of that step: its weights are an EMA snapshot's{rounded}")
    if (left := checkpoints[-1:]) and left[0].step > last.step:
        notes.append(
            f"{left[0].file.name} is left out: no EMA snapshot is as new, the newest is of step "
            f"{last.step}"
        )
    with _made_whole(new) as run:
        run.write_config(config)
        shutil.copyfile(old / "config.yaml", run.path / "official.yaml")
        run.ema.mkdir()
        mark = Identity.of(config).mark()
        for snapshot in snapshots:
            average = converter(snapshot.file, _read(snapshot.file))
            average |= {name: weights[name] for name in converter.tables}
            write_snapshot(snapshot_file(run.ema, snapshot.std, snapshot.step), average, mark)
        if not snapshots:
            write_snapshot(snapshot_file(run.ema, stds[0], last.step), weights, mark)
        _save_checkpoint(run, config, converter.model, weights)
        _record(run, old, notes)
    return notes


def run_config(official: Mapping[str, Any], kind: str, steps: int, stds: list[float]) -> RunConfig:
    """Convert the official arguments into a config of mpdit, trained for ``steps``.

    Raises:
        ConfigError: naming the argument that is missing or has no counterpart.
    """
    for key, value in FIXED.items():
        if official.get(key, value) != value:
            raise ConfigError(f"{key}: {official[key]} has no counterpart here, only {value}")
    switches = {key for key, value in official.items() if key.startswith("use_") and value}
    known = {*PAPERS_FLAGS, *(f"{part}_mod" for part in PARTS), "ema"}
    if odd := sorted(switches - {f"use_{name}" for name in known}):
        raise ConfigError(f"{odd[0]} has no counterpart here")
    for key in ("num_steps", "num_lin_warmup", "start_decay", "ema_snapshot_every"):
        if not isinstance(official.get(key), int | None):
            raise ConfigError(f"{key} is not a number of steps: {official[key]!r}")
    try:
        model, data = tensors.model_options(official, kind), tensors.dataset(official)
    except KeyError as error:
        raise ConfigError(f"the official config.yaml has no {error.args[0]}") from None
    name = next((name for name, row in DATASETS.items() if row.shape == data), None)
    shape = {"channels": data.channels, "size": data.size, "classes": data.classes}
    planned = official.get("num_steps") or steps
    rate = official.get("lr") or (1e-4 if kind == "flags" else 1e-2)
    recipe: dict[str, Any] = {"learning_rate": rate}
    if kind != "flags":
        recipe["clip_norm"] = 0.1
    return make_run(
        {
            "model": model,
            "data": {"name": name} if name else {"name": "latents", **shape},
            "train": {
                "steps": steps,
                "batch_size": official.get("batch_size", 256),
                **recipe,
                "warmup_steps": _given(official, "num_lin_warmup", planned // 150),
                "constant_steps": max(1, _given(official, "start_decay", planned // 10)),
                "label_dropout": official.get("class_dropout_prob", 0.1),
                "ema_stds": stds,
                "snapshot_every": max(1, _given(official, "ema_snapshot_every", planned // 250)),
            },
            "sample": {
                "guidance": 1.5 if kind == "flags" else 1.0,
                "ema_std": stds[0],
                "labels": "uniform",  # as the official code draws them for its FID
            },
            "seed": official.get("seed", 0),
        }
    )


def _given(official: Mapping[str, Any], key: str, otherwise: int) -> int:
    """An argument's value; ``otherwise``, the official default, where it is missing or None."""
    value = official.get(key)
    return otherwise if value is None else int(value)


class _Converter:
    """Converts official state dicts into mpdit's, for one model.

    Attributes:
        tables: names of the fixed random tables that a snapshot holds besides the parameters.
    """

    def __init__(self, config: RunConfig, kind: str) -> None:
        self.config, self.kind = config.model, kind
        self.model = DiT(config.model, config.data.spec)
        self.state = self.model.state_dict()
        self.tables = self.state.keys() - dict(self.model.named_parameters()).keys()

    def __call__(self, file: Path, official: State) -> State:
        """Return the tensors of ``file`` under mpdit's names.

        Raises:
            ConfigError: naming the tensor that is missing, left over, or of another shape.
        """
        tables = {o: official[t] for o, t in tensors.BUFFERS.items() if t in official}
        rest = {n: t for n, t in official.items() if n not in tensors.BUFFERS.values()}
        try:
            found = tensors.from_official(rest, self.config, self.kind)
        except KeyError as error:
            raise ConfigError(f"{file}: {error.args[0]}") from None
        for name, table in tables.items():
            if name in self.tables:
                found[name] = table
            elif not _same_table(table, dict(self.model.named_buffers()).get(name)):
                raise ConfigError(
                    f"{file}: {tensors.BUFFERS[name]} is not the table that config.yaml needs"
                )
        for name, ours in self.state.items():
            if name not in found:
                raise ConfigError(f"{file} lacks the tensor for {name}")
            if found[name].shape != ours.shape:
                shape, expected = tuple(found[name].shape), tuple(ours.shape)
                raise ConfigError(f"{file}: {name} is {shape}, and {expected} by config.yaml")
        if broken := [name for name in self.state if not found[name].isfinite().all()]:
            raise ConfigError(
                f"{file}: {broken[0]} holds NaN or infinite numbers (as do {len(broken) - 1} other "
                "tensors): its training diverged"
            )
        return {name: found[name].contiguous() for name in self.state}


def _same_table(stored: Tensor, ours: Tensor | None) -> bool:
    if ours is None or stored.numel() != ours.numel():
        return False
    return bool((stored.reshape(ours.shape) - ours).abs().max() < TABLE_TOLERANCE)


def _read(file: Path) -> State:
    """Read the state dict of one official .pt file, without prefixes of compilation and replicas.

    Half-precision tensors become float32.

    Raises:
        ConfigError: when the file cannot be read without unpickling code, has no state dict, or is
            from the original DiT release.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:  # torch does not compare the checksums
                if part := archive.testzip():
                    raise ValueError(f"{part} is not what was written")
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # any error of a damaged pickle or zip
        raise ConfigError(f"{file} is damaged: {why_unloadable(error)}") from None
    keys = list(content) if isinstance(content, Mapping) else [type(content).__name__]
    state = next((content[key] for key in HOLDERS if key in keys), content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"{file} holds no state dict, but {', '.join(map(str, keys[:8]))}")
    # of compiled models and of replicas, in whichever order
    prefixes = re.compile(r"^(module\.|_orig_mod\.)+")
    tensors = {prefixes.sub("", name): tensor for name, tensor in state.items()}
    if "x_embedder.proj.weight" in tensors or "blocks.0.attn.qkv.weight" in tensors:
        raise ConfigError(
            f"{file} is of the original DiT release, not of map-dit: its layers have biases "
            "(fused qkv, convolutional patches) that this model has no place for"
        )
    return {name: t.float() if t.dtype in HALVES else t for name, t in tensors.items()}


def _official_config(old: Path) -> dict[str, Any]:
    text = read_config(old)
    if not isinstance(text.tree, dict):
        raise text.error((), "not a mapping of arguments")
    return text.tree


def _checkpoints(old: Path) -> list[Stored]:
    """List the checkpoints by step.

    Raises:
        ConfigError: for a name without a step.
    """
    files = (old / "checkpoints").glob("*.pt")
    return sorted(Stored(int(_in_name(r"(\d+)$", file)[0]), 0, file) for file in files)


def _snapshots(old: Path) -> list[Stored]:
    """List the snapshots by step, then width.

    Raises:
        ConfigError: for a name without a width and a step.
    """
    named = [(_in_name(r"(\d*\.\d+)\D*?_\D*(\d+)$", f), f) for f in (old / "ema").glob("*.pt")]
    return sorted(Stored(int(step), float(std), file) for (std, step), file in named)


def _in_name(pattern: str, file: Path) -> tuple[str, ...]:
    match = re.search(pattern, file.stem)
    if match is None:
        _read(file)  # its content may give a better reason
        raise ConfigError(f"{file}: no step (of a snapshot: width_step) is in its name")
    return match.groups()


@contextmanager
def _made_whole(new: Path) -> Iterator[RunDir]:
    """Yield a run directory that gets its final name when it is complete."""
    new.parent.mkdir(parents=True, exist_ok=True)
    partial = new.with_name(f".{new.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield RunDir(partial)
        partial.rename(new)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save_checkpoint(run: RunDir, config: RunConfig, model: DiT, weights: State) -> None:
    """Write the checkpoint of the last step, so that no training is left."""
    parameters = [weights[name].float() for name, _ in model.named_parameters()]
    groups, betas = parameter_groups(model, config.train), config.train.adam_betas
    state = {
        "step": config.train.steps,
        "meters": Meters(config, run, torch.device("cpu"), devices=1).state_dict(),
        "model": weights,
        "optimizer": torch.optim.Adam(groups, betas=betas).state_dict(),
        "ema": PowerEMA(parameters, config.train.ema_stds).state_dict(),
    }
    checkpoint.save(run.checkpoints, config.train.steps, state, Identity.of(config).mark())


def _record(run: RunDir, old: Path, notes: list[str]) -> None:
    """Record the run's origin in provenance.json and log.txt."""
    entry = record_start(run, torch.device("cpu"), processes=1)
    entry |= {"converted_from": str(old.resolve()), "notes": notes}
    write_atomic(run.path / "provenance.json", json.dumps({"starts": [entry]}, indent=1))
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    write_atomic(run.log, "".join(f"{now}  {note}\n" for note in notes))


def convert_run(old: Path, new: Path) -> None:
    """``mpdit convert``: `convert` a run, and print the notes on it."""
    print(*convert(old, new), sep="\n")
