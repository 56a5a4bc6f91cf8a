"""The real images that samples are compared with: a data set's own, or a file in ADM's layout.

They are read batch by batch. Their features, or only the statistics of these, are cached below
``$MPDIT_CACHE`` (``~/.cache/mpdit``) by what they were computed from: the data's hash, the number
of images, the extractor with the hash of its weights, and the preprocessing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mpdit.config import DataConfig, EvaluateConfig
from mpdit.data import datasets
from mpdit.data.preflight import (
    check_enough,
    check_reference,
    needs_features,
    reference_file,
)
from mpdit.disk import npz
from mpdit.disk.cachefolder import cache_folder
from mpdit.disk.files import make_folder
from mpdit.errors import ConfigError
from mpdit.evaluation.extractors.extractor import Extractor, Features, in_batches
from mpdit.evaluation.features import Arrays, Key, Watch, identity, keep, read
from mpdit.evaluation.metrics import Reference, Statistics, accumulate
from mpdit.evaluation.realimages import (
    AdmImages,
    RealImages,
    Record,
    in_proportion,
    like,
    of_split,
)
from mpdit.runtime.session import log
from mpdit.sampling.drawing import Drawing, labels


@dataclass(frozen=True)
class HeldOut:
    """Real images that took no part in training."""

    record: Record
    features: Features


def check(data: DataConfig, evaluate: EvaluateConfig, extractor: Extractor) -> None:
    """Check before training all real images that evaluation needs.

    Of a folder, only the number of images: each file is read when it is trained on or checked.

    Raises:
        ConfigError: as `load` and `held_out`, and for too few images to compare with.
    """
    if not datasets.is_latents(data):
        check_enough(of_split(data, "train").count, data.name, evaluate)
        of_split(data, "test")
        return
    file = reference_file(data)
    held = check_reference(file, evaluate)
    given = _given(file, held, extractor)
    if given is None or needs_features(evaluate):
        try:
            AdmImages(file, held.shape[0]).check_whole()
        except npz.DamagedError as error:
            raise ConfigError(str(error), "data.path") from None


def load(
    data: DataConfig, evaluate: EvaluateConfig, extractor: Extractor, watch: Watch
) -> Reference:
    """The train split of a data set, or for latents the reference file of their images.

    Args:
        evaluate: the metrics, which need features or only their statistics.
        watch: gets the batches of images that are read.

    Raises:
        ConfigError: when the reference is missing, damaged, or of another extractor; when features
            are needed and the file has only statistics.
    """
    if datasets.is_latents(data):
        return _from_file(reference_file(data), evaluate, extractor, watch)
    return _from_images(of_split(data, "train"), evaluate, extractor, watch)


def known_hash(data: DataConfig) -> str | None:
    """The hash of `load`'s images in records; None where the images must be read first.

    Raises:
        ConfigError: when the reference is missing or damaged.
    """
    if datasets.is_latents(data):
        return AdmImages(reference_file(data), 0).hash
    return of_split(data, "train").hash


def held_out(
    data: DataConfig, drawing: Drawing, extractor: Extractor, watch: Watch
) -> HeldOut | None:
    """Images of a data set's test split, to be measured in place of samples.

    Where labels follow the data, they are as many as the samples, in the test split's own
    proportions, or all of it. Otherwise they have the samples' labels (`realimages.like`), and are
    fewer where the test split has too few of a class; that is logged, and their record says how
    labels were drawn.

    None for latents, whose images are not available, and for a folder of too few images to split.
    """
    if datasets.is_latents(data):
        return None
    wanted = None if drawing.labels == "data" else labels(drawing)

    def choose(there: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " rows"]:
        if wanted is None:
            return in_proportion(there, drawing.count)
        rows = like(there, wanted)
        if len(rows) < drawing.count:
            log.warning(
                "the floor has %d images for %d samples: the test split has no more to draw as "
                "sample.labels %s does",
                len(rows),
                drawing.count,
                drawing.labels,
            )
        return rows

    images = of_split(data, "test", choose)
    if not images.count:
        return None
    features = _features(images, extractor, watch)
    told = images.record()
    return HeldOut(told if wanted is None else {**told, "labels": drawing.labels}, features)


def _from_images(
    images: RealImages, evaluate: EvaluateConfig, extractor: Extractor, watch: Watch
) -> Reference:
    pooled = _features(images, extractor, watch).pooled if needs_features(evaluate) else None

    def compute() -> Arrays:
        if pooled is not None:
            return accumulate(in_batches(pooled, extractor.batch_size))._asdict()
        return accumulate(part.pooled for part in _look(images, extractor, watch))._asdict()

    found = _cached("statistics", images, extractor, compute)
    told = {**images.record(), "preprocessing": extractor.preprocessing}
    return Reference(told, Statistics(**found), pooled, told)


def _from_file(
    file: Path, evaluate: EvaluateConfig, extractor: Extractor, watch: Watch
) -> Reference:
    """A reference in ADM's layout: statistics of the whole data set, images of a part of it."""
    held = check_reference(file, evaluate)
    images = AdmImages(file, held.shape[0] if held.usable else 0)
    given = _given(file, held, extractor)
    try:
        if given is None:
            return _from_images(images, evaluate, extractor, watch)
        pooled = _features(images, extractor, watch).pooled if needs_features(evaluate) else None
    except npz.DamagedError as error:
        raise ConfigError(str(error), "data.path") from None
    told = images.record()
    return Reference(
        {**told, "count": None, "preprocessing": "the file's own statistics"},
        given,
        pooled,
        {**told, "preprocessing": extractor.preprocessing},
    )


def _given(file: Path, held: npz.Contents, extractor: Extractor) -> Statistics | None:
    """The statistics that a file has.

    Raises:
        ConfigError: when they are statistics of another extractor's features.
    """
    if not {"mu", "sigma"} <= held.arrays:
        return None
    given = Statistics(*npz.statistics(file))
    width = extractor.features(np.zeros((1, 8, 8, 1), np.uint8)).pooled.shape[1]
    if given.mean.shape != (width,):
        raise ConfigError(
            f"{file} holds statistics of {len(given.mean)} features, {extractor.name} has {width}",
            "evaluate.extractor",
        )
    made_by = npz.extractor(file)
    if made_by not in (None, (extractor.name, extractor.weights)):
        raise ConfigError(
            f"{file} holds statistics of {' with weights '.join(made_by)}, "
            f"not of {extractor.name} with weights {extractor.weights}",
            "evaluate.extractor",
        )
    return given


def _features(images: RealImages, extractor: Extractor, watch: Watch) -> Features:
    def compute() -> Arrays:
        return Features.join(_look(images, extractor, watch))._asdict()

    return Features(**_cached("features", images, extractor, compute))


def _look(images: RealImages, extractor: Extractor, watch: Watch) -> Iterator[Features]:
    return extractor.look(watch(images.batches(extractor.batch_size), images.count))


def _cached(
    kind: str, images: RealImages, extractor: Extractor, make: Callable[[], Arrays]
) -> dict[str, np.ndarray]:
    """The arrays in the cache; computed if missing, and stored if the cache can be written."""

    def place() -> tuple[Path, Key]:
        key = {
            **identity(extractor), "kind": kind, "count": images.count, "data": images.hash
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cache_folder() / f"{extractor.name}-{kind}-{digest}.safetensors", key

    found = read(*place()) if images.hash is not None else None
    if found is None:
        found = dict(make())
        file, key = place()  # a folder's files have been read, and their hash is known
        try:
            make_folder(file.parent)
            keep(file, key, found)
        except OSError as error:
            log.warning("the cache of references cannot be used (set MPDIT_CACHE): %s", error)
    return found
