"""The real images that samples are held against: a data set's own, or a file of ADM's.

Features and statistics are cached below ``$MPDIT_CACHE`` (``~/.cache/mpdit``) under what they were
computed from: the data's hash, their number, the extractor with the hash of its weights, and what
is done to an image before the network sees it.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from mpdit.config import ConfigError, DataConfig, RunConfig
from mpdit.data import datasets
from mpdit.extractors import Extractor, Features
from mpdit.extractors.extractor import file_hash
from mpdit.features import Arrays, identity, recall
from mpdit.metrics import Statistics, statistics
from mpdit.session import log

ADM_FILES = {"imagenet128-latents": "VIRTUAL_imagenet128_labeled.npz"}
ADM_URL = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/128"
OTHER_FILE = "reference.npz"
"""The same layout for latents of other images: arr_0 (uint8 N, H, W, C), or mu and sigma."""

Record = dict[str, str | int | None]
Images = UInt8[np.ndarray, "images height width channels"]


@dataclass(frozen=True)
class Reference:
    """Real images as an extractor sees them.

    Attributes:
        record: data, split, count (images behind the statistics; None where a file does not say),
            hash, preprocessing.
        pooled: features for the metrics that need more than statistics; None where not wanted.
    """

    record: Record
    statistics: Statistics
    pooled: Float32[np.ndarray, "images features"] | None


@dataclass(frozen=True)
class HeldOut:
    """Real images that took no part in training."""

    record: Record
    features: Features
    classes: Int64[np.ndarray, " images"]


def check_available(config: RunConfig) -> None:
    """Whether there is anything to compare the run's samples with.

    Raises:
        ConfigError: saying which file to put where.
    """
    if _of_latents(config.data):
        reference_file(config.data)


def load(data: DataConfig, extractor: Extractor, with_features: bool) -> Reference:
    """The train split of a data set, or for latents the reference file of their images.

    Raises:
        ConfigError: when it is missing or damaged, or of another extractor; when features are
            wanted and the file has only statistics.
    """
    if _of_latents(data):
        return _from_file(reference_file(data), extractor, with_features)
    images = datasets.load(data, "train")
    record = _record(data.name, "train", len(images.labels), images.hash)
    return _from_images(record, extractor, with_features, lambda: datasets.to_uint8(images.pixels))


def held_out(data: DataConfig, extractor: Extractor) -> HeldOut | None:
    """The test split of a data set; None for latents, whose images are not at hand."""
    if _of_latents(data):
        return None
    images = datasets.load(data, "test")
    record = _record(data.name, "test", len(images.labels), images.hash)
    features = _features(record, extractor, lambda: datasets.to_uint8(images.pixels))
    return HeldOut(record, features, images.labels)


def reference_file(data: DataConfig) -> Path:
    """Where the reference of a data set of latents lies: beside them.

    Raises:
        ConfigError: saying which file to put where.
    """
    name = ADM_FILES.get(data.name, OTHER_FILE)
    root = os.environ.get("MPDIT_DATA")
    folder = Path(data.path or Path(root or "", data.name))
    places = [folder / name, *([Path(root, name)] if root else [])]
    for file in places:
        if file.is_file():
            return file
    source = (
        f"Download it from {ADM_URL}/{name}"
        if data.name in ADM_FILES
        else "It is an .npz of arr_0 (the real images, uint8 N, H, W, C), or of mu and sigma"
    )
    raise ConfigError(
        f"{data.name} needs real images to compare with: there is no "
        f"{' nor '.join(map(str, places))}. {source}",
        "data.path",
    )


def _of_latents(data: DataConfig) -> bool:
    return str(data.name).endswith("latents")


def _record(data: str, split: str, count: int | None, digest: str) -> Record:
    return {"data": data, "split": split, "count": count, "hash": digest}


def _from_images(
    record: Record, extractor: Extractor, with_features: bool, images: Callable[[], Images]
) -> Reference:
    pooled = _features(record, extractor, images).pooled if with_features else None

    def compute() -> Arrays:
        seen = extractor.features(images()).pooled if pooled is None else pooled
        return statistics(seen)._asdict()

    found = _cached("statistics", record, extractor, compute)
    return Reference(
        {**record, "preprocessing": extractor.preprocessing}, Statistics(**found), pooled
    )


def _from_file(file: Path, extractor: Extractor, with_features: bool) -> Reference:
    """ADM's layout. Its statistics are of the whole data set, its images a part of it."""
    digest = file_hash(file)

    def images() -> Images:
        with np.load(file) as arrays:
            found: Images = arrays["arr_0"]
        return found

    try:
        with np.load(file) as arrays:
            held = set(arrays.files)
            given = Statistics(arrays["mu"], arrays["sigma"]) if {"mu", "sigma"} <= held else None
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ConfigError(f"{file} is damaged: {error}", "data.path") from None
    if "arr_0" not in held and (given is None or with_features):
        raise ConfigError(
            f"{file} holds {', '.join(sorted(held))}: "
            + ("kid and precision_recall need" if given else "neither mu and sigma, nor")
            + " real images (arr_0)",
            "evaluate.metrics" if given else "data.path",
        )
    if given is None:
        count = len(images())
        record = _record(file.name, "reference", count, digest)
        return _from_images(record, extractor, with_features, images)
    width = extractor.features(np.zeros((1, 8, 8, 1), np.uint8)).pooled.shape[1]
    if given.mean.shape != (width,):
        raise ConfigError(
            f"{file} holds statistics of {len(given.mean)} features, {extractor.name} has {width}",
            "evaluate.extractor",
        )
    record = _record(file.name, "reference", None, digest)
    return Reference(
        {**record, "preprocessing": "the file's own statistics"},
        Statistics(*(array.astype(np.float64) for array in given)),
        _features(record, extractor, images).pooled if with_features else None,
    )


def _features(record: Record, extractor: Extractor, images: Callable[[], Images]) -> Features:
    arrays = _cached("features", record, extractor, lambda: extractor.features(images())._asdict())
    return Features(**arrays)


def _cached(
    kind: str, record: Record, extractor: Extractor, make: Callable[[], Arrays]
) -> dict[str, np.ndarray]:
    """:func:`~mpdit.features.recall` from the cache; without it where it cannot be written."""
    key = {
        **identity(extractor), "kind": kind, "count": record["count"], "data": record["hash"]
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("MPDIT_CACHE") or Path("~/.cache/mpdit").expanduser())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return recall(folder / f"{extractor.name}-{kind}-{digest}.safetensors", key, make)
    except OSError as error:
        log.warning("the cache of references cannot be used (set MPDIT_CACHE): %s", error)
        return dict(make())
