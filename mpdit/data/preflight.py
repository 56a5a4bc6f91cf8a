"""Check before training for everything that evaluation needs and no package contains.

These are an extractor's weights, a file of real images beside latents, and enough samples. Nothing
is downloaded. No torch, so that a submission can check too.
"""

from __future__ import annotations

import os
from pathlib import Path

from mpdit.catalogue import DATASETS, EXTRACTORS, METRICS
from mpdit.config import DataConfig, EvaluateConfig, RunConfig
from mpdit.data import datasets
from mpdit.data.latents import read_manifest
from mpdit.disk import npz
from mpdit.errors import ConfigError
from mpdit.invocation import typed
from mpdit.text import expanded


def check_evaluable(config: RunConfig) -> None:
    """Check that a run of this config can be evaluated on this machine.

    Raises:
        ConfigError: saying which file to put where, or what to change.
    """
    check_labels_trained(config)
    evaluate, spec = config.evaluate, config.data.spec
    extractor = EXTRACTORS.find(evaluate.extractor)
    if extractor.weights is not None:
        weights_file(evaluate)
    elif extractor.channels not in (None, spec.channels):
        raise ConfigError(
            f"{evaluate.extractor} takes grey images, but those of {config.data.name} have "
            "colours: use inception",
            "evaluate.extractor",
        )
    if datasets.is_latents(config.data):
        file = reference_file(config.data)
        check_resolution(file, check_reference(file, evaluate), config.data)
    elif DATASETS.find(config.data.name).kind == "folder":
        folder = datasets.image_folder(config.data)
        check_enough(len(folder.split("train").labels), str(folder.root), evaluate)
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


def check_labels_trained(config: RunConfig) -> None:
    """Check that training reaches the label embeddings that sampling uses.

    Raises:
        ConfigError: when samples would be drawn from rows that keep their initial values.
    """
    dropout, guidance = config.train.label_dropout, config.sample.guidance
    if dropout == 0 and guidance != 1:
        raise ConfigError(
            f"guidance {guidance:g} needs the model without a label, which label_dropout 0 never "
            "trains: set sample.guidance to 1, or train.label_dropout above 0",
            "train.label_dropout",
        )
    if dropout == 1 and guidance != 0:
        raise ConfigError(
            f"guidance {guidance:g} needs the model with labels, which label_dropout 1 never "
            "trains: set sample.guidance to 0, or train.label_dropout below 1",
            "train.label_dropout",
        )


def weights_file(evaluate: EvaluateConfig) -> Path:
    """The file of the weights of the config's extractor, which the package does not contain.

    It is the one that evaluate.inception (or .dinov2, by the extractor's name) names, else
    $MPDIT_INCEPTION (or _DINOV2), else the one in torch's hub cache.

    Raises:
        ConfigError: saying which file to put where.
    """
    row = EXTRACTORS.find(evaluate.extractor)
    weights = row.weights
    assert weights is not None, f"the weights of {row.name} come with the package"
    told = getattr(evaluate, row.name) or os.environ.get(weights.variable)
    file = expanded(told) if told else _torch_hub() / "checkpoints" / weights.file
    if not file.is_file():
        raise ConfigError(
            f"{row.title}'s weights are not at {file}. Download {weights.file} "
            f"({weights.megabytes:,} MB) from {weights.url} and put it there, or set "
            f"evaluate.{row.name} or {weights.variable} to where it lies"
        )
    return file


def _torch_hub() -> Path:
    """The folder that torch.hub.get_dir() returns."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"


def reference_file(data: DataConfig) -> Path:
    """The reference file of a data set of latents, in their folder or in ``$MPDIT_DATA``.

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
        else f"Make it from the images that were encoded: {_making(places[0], places[0].parent)}"
    )
    raise ConfigError(
        f"{data.name} needs real images to compare with: there is no "
        f"{' nor '.join(map(str, places))}. {source}",
        "data.path",
    )


def needs_features(evaluate: EvaluateConfig) -> bool:
    """Whether a metric needs the reference's features, not only its statistics."""
    return any(METRICS.find(metric).needs_features for metric in evaluate.metrics)


def check_enough(count: int, where: str, evaluate: EvaluateConfig) -> None:
    """Check that there are as many real images as the metrics need.

    Raises:
        ConfigError: saying how many there are, and how many are needed.
    """
    rows = [METRICS.find(metric) for metric in evaluate.metrics]
    needed = {"the distance's covariance": 2} | {r.name: r.least for r in rows if r.needs_features}
    what, least = max(needed.items(), key=lambda item: item[1])
    if count < least:
        raise ConfigError(
            f"{where}: {what} needs at least {least} real images to compare with, not {count}",
            "data.path",
        )


def check_reference(file: Path, evaluate: EvaluateConfig) -> npz.Contents:
    """Check a reference file: its statistics, and everything of its images but the pixels.

    Raises:
        ConfigError: when it is damaged, or does not hold what the metrics need.
    """
    try:
        held = npz.contents(file)
        has_statistics = {"mu", "sigma"} <= held.arrays
        if has_statistics:
            npz.statistics(file)
            made_by = npz.extractor(file)
    except npz.DamagedError as error:
        raise ConfigError(str(error), "data.path") from None
    if has_statistics and made_by and made_by[0] != evaluate.extractor:
        raise ConfigError(
            f"the mu and sigma of {file} are features of {made_by[0]}, not of {evaluate.extractor}",
            "evaluate.extractor",
        )
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
    check_enough(held.shape[0], str(file), evaluate)
    return held


def check_resolution(file: Path, held: npz.Contents, data: DataConfig) -> None:
    """Check that a reference file's images have the shape to which latents are decoded.

    Raises:
        ConfigError: naming both shapes.
    """
    store = datasets.place(data)
    side = read_manifest(store).pixels
    if held.usable and held.shape[1:] != (side, side, 3):
        there = "×".join(map(str, held.shape[1:]))
        raise ConfigError(
            f"arr_0 of {file} holds images of {there}, but the run's are {side}×{side}×3. Make it "
            f"anew: {_making('OUT.npz', store)}",
            "data.path",
        )


def _making(reference: Path | str, store: Path) -> str:
    """The command that makes the reference file of a latent store."""
    return typed("data", "reference", reference, "--data", "FOLDER", "--store", store)
