"""What an evaluation needs that comes with no package, looked for before anything is trained.

An extractor's weights, a file of real images beside latents, and enough samples. Nothing is
downloaded. No torch, so that a submission can look as well.
"""

from __future__ import annotations

import os
from pathlib import Path

from mpdit.catalogue import DATASETS, EXTRACTORS, METRICS
from mpdit.config import DataConfig, EvaluateConfig, RunConfig
from mpdit.data import datasets
from mpdit.disk import npz
from mpdit.errors import ConfigError


def check_evaluable(config: RunConfig) -> None:
    """Whether a run of this config can be evaluated on this machine.

    Raises:
        ConfigError: saying which file to put where, or what to change.
    """
    evaluate, spec = config.evaluate, config.data.spec
    extractor = EXTRACTORS.find(evaluate.extractor)
    if extractor.weights is not None:
        weights_file(evaluate)
    elif extractor.channels not in (None, spec.channels):
        raise ConfigError(
            f"{evaluate.extractor} takes grey images, those of {config.data.name} have colours: "
            "use inception",
            "evaluate.extractor",
        )
    if datasets.is_latents(config.data):
        check_reference(reference_file(config.data), evaluate)
    for metric in evaluate.metrics:
        row = METRICS.find(metric)
        if config.sample.count < row.least:
            raise ConfigError(f"{metric} needs at least {row.least} samples", "sample.count")
        if row.needs_classes and not extractor.classes:
            raise ConfigError(
                f"{metric} needs the class probabilities of an extractor, and {extractor.title} "
                "has no classes. Use inception, or leave it out",
                "evaluate.metrics",
            )


def weights_file(evaluate: EvaluateConfig) -> Path:
    """Where the weights of the config's extractor are, which do not come with the package.

    That is where evaluate.inception (or .dinov2, by the extractor's name) says, else
    $MPDIT_INCEPTION (or _DINOV2), else torch's hub cache.

    Raises:
        ConfigError: saying which file to put where.
    """
    row = EXTRACTORS.find(evaluate.extractor)
    weights = row.weights
    assert weights is not None, f"the weights of {row.name} come with the package"
    told = getattr(evaluate, row.name) or os.environ.get(weights.variable)
    file = datasets.named(told) if told else _torch_hub() / "checkpoints" / weights.file
    if not file.is_file():
        raise ConfigError(
            f"{row.title}'s weights are not at {file}. Download {weights.file} "
            f"({weights.megabytes:,} MB) from {weights.url} and put it there, or set "
            f"evaluate.{row.name} or {weights.variable} to where it lies"
        )
    return file


def _torch_hub() -> Path:
    """What torch.hub.get_dir() says."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"


def reference_file(data: DataConfig) -> Path:
    """Where the reference of a data set of latents lies: in their folder, or in ``$MPDIT_DATA``.

    Raises:
        ConfigError: saying which file to put where.
    """
    row = DATASETS.find(data.name)
    name = row.reference_file
    root = os.environ.get("MPDIT_DATA")
    places = [datasets.place(data) / name, *([Path(root, name)] if root else [])]
    for file in places:
        if file.is_file():
            return file
    source = (
        f"Download it from {row.reference_url}"
        if row.reference_url
        else "It is an .npz of arr_0 (the real images, uint8 N, H, W, C), or of mu and sigma"
    )
    raise ConfigError(
        f"{data.name} needs real images to compare with: there is no "
        f"{' nor '.join(map(str, places))}. {source}",
        "data.path",
    )


def needs_features(evaluate: EvaluateConfig) -> bool:
    """Whether one of the metrics needs more of the reference than its statistics."""
    return any(METRICS.find(metric).needs_features for metric in evaluate.metrics)


def check_reference(file: Path, evaluate: EvaluateConfig) -> npz.Contents:
    """Look into a reference file without reading its arrays.

    Raises:
        ConfigError: when it is damaged, or does not hold what the metrics need.
    """
    try:
        held = npz.contents(file)
    except npz.DamagedError as error:
        raise ConfigError(str(error), "data.path") from None
    has_statistics = {"mu", "sigma"} <= held.arrays
    if has_statistics and not needs_features(evaluate):
        return held
    key = "evaluate.metrics" if has_statistics else "data.path"
    if "arr_0" not in held.arrays:
        lacking = "kid and precision_recall need" if has_statistics else "neither mu and sigma, nor"
        raise ConfigError(
            f"{file} holds {', '.join(sorted(held.arrays))}: {lacking} real images (arr_0)", key
        )
    if not held.usable:
        raise ConfigError(
            f"arr_0 of {file} is {held.dtype} of shape {held.shape}: real images are uint8 "
            "(N, H, W, C), row by row",
            key,
        )
    return held
