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
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from mpdit.cachefolder import cache_folder
from mpdit.config import ConfigError, DataConfig, RunConfig
from mpdit.data import datasets
from mpdit.extractors import Extractor, Features
from mpdit.extractors.extractor import file_hash
from mpdit.features import Arrays, identity, keep, read
from mpdit.metrics import NEED_FEATURES, Statistics, statistics
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
        pooled_record: the same of the images behind ``pooled``; another where a file has both
            statistics and images.
    """

    record: Record
    statistics: Statistics
    pooled: Float32[np.ndarray, "images features"] | None
    pooled_record: Record


@dataclass(frozen=True)
class HeldOut:
    """Real images that took no part in training."""

    record: Record
    features: Features
    classes: Int64[np.ndarray, " images"]


def check_available(config: RunConfig) -> None:
    """Whether there is anything to compare the run's samples with.

    Raises:
        ConfigError: saying which file to put where, or what it lacks.
    """
    if config.data.name in datasets.LATENTS:
        with_features = not NEED_FEATURES.isdisjoint(config.evaluate.metrics)
        _contents(reference_file(config.data), with_features)


def load(data: DataConfig, extractor: Extractor, with_features: bool) -> Reference:
    """The train split of a data set, or for latents the reference file of their images.

    Raises:
        ConfigError: when it is missing or damaged, or of another extractor; when features are
            wanted and the file has only statistics.
    """
    if data.name in datasets.LATENTS:
        return _from_file(reference_file(data), extractor, with_features)
    images = datasets.load(data, "train")
    record = _record(data.name, "train", len(images.labels), images.hash)
    return _from_images(record, extractor, with_features, lambda: datasets.to_uint8(images.pixels))


def held_out(data: DataConfig, extractor: Extractor) -> HeldOut | None:
    """The test split of a data set.

    None for latents, whose images are not at hand, and for a folder of too few images to split.
    """
    if data.name in datasets.LATENTS:
        return None
    if data.name == "folder" and not datasets.image_folder(data).split("test").names:
        return None
    images = datasets.load(data, "test")
    record = _record(data.name, "test", len(images.labels), images.hash)
    features = _features(record, extractor, lambda: datasets.to_uint8(images.pixels))
    return HeldOut(record, features, images.labels)


def reference_file(data: DataConfig) -> Path:
    """Where the reference of a data set of latents lies: in their folder, or in ``$MPDIT_DATA``.

    Raises:
        ConfigError: saying which file to put where.
    """
    name = ADM_FILES.get(data.name, OTHER_FILE)
    root = os.environ.get("MPDIT_DATA")
    places = [datasets.place(data) / name, *([Path(root, name)] if root else [])]
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
    told = {**record, "preprocessing": extractor.preprocessing}
    return Reference(told, Statistics(**found), pooled, told)


class _Contents(NamedTuple):
    """What a reference file holds: its statistics or not, and how many images."""

    statistics: bool
    images: int


def _contents(file: Path, with_features: bool) -> _Contents:
    """Look into a reference file without reading its arrays.

    Raises:
        ConfigError: when it is damaged, or does not hold what is wanted.
    """
    shape: tuple[int, ...] = ()
    dtype = None
    try:
        with zipfile.ZipFile(file) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            if "arr_0" in held:
                with archive.open("arr_0.npy") as array:
                    np.lib.format.read_magic(array)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(array)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
        raise ConfigError(f"{file} is damaged: {error}", "data.path") from None
    given = {"mu", "sigma"} <= held
    if given and not with_features:
        return _Contents(given, 0)
    key = "evaluate.metrics" if given else "data.path"
    if "arr_0" not in held:
        raise ConfigError(
            f"{file} holds {', '.join(sorted(held))}: "
            + ("kid and precision_recall need" if given else "neither mu and sigma, nor")
            + " real images (arr_0)",
            key,
        )
    if dtype != np.uint8 or len(shape) != 4:
        raise ConfigError(
            f"arr_0 of {file} is {dtype} of shape {shape}: real images are uint8 (N, H, W, C)", key
        )
    return _Contents(given, shape[0])


def _from_file(file: Path, extractor: Extractor, with_features: bool) -> Reference:
    """ADM's layout. Its statistics are of the whole data set, its images a part of it."""
    has_statistics, count = _contents(file, with_features)
    digest = file_hash(file)

    def images() -> Images:
        with np.load(file) as arrays:
            found: Images = arrays["arr_0"]
        return found

    of_images = _record(file.name, "reference", count, digest)
    if not has_statistics:
        return _from_images(of_images, extractor, with_features, images)
    try:
        with np.load(file) as arrays:
            given = Statistics(arrays["mu"], arrays["sigma"])
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
        raise ConfigError(f"{file} is damaged: {error}", "data.path") from None
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
        _features(of_images, extractor, images).pooled if with_features else None,
        {**of_images, "preprocessing": extractor.preprocessing},
    )


def _features(record: Record, extractor: Extractor, images: Callable[[], Images]) -> Features:
    arrays = _cached("features", record, extractor, lambda: extractor.features(images())._asdict())
    return Features(**arrays)


def _cached(
    kind: str, record: Record, extractor: Extractor, make: Callable[[], Arrays]
) -> dict[str, np.ndarray]:
    """The arrays in the cache; made where it lacks them, and kept where it can be written."""
    key = {
        **identity(extractor), "kind": kind, "count": record["count"], "data": record["hash"]
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder()
    file = folder / f"{extractor.name}-{kind}-{digest}.safetensors"
    found = read(file, key)
    if found is None:
        found = dict(make())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            keep(file, key, found)
        except OSError as error:
            log.warning("the cache of references cannot be used (set MPDIT_CACHE): %s", error)
    return found
