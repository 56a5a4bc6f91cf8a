"""Making a reference file in ADM's layout: real images, their labels, and statistics of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from mpdit.catalogue import DATASETS, EXTRACTORS
from mpdit.config import DataConfig, EvaluateConfig
from mpdit.data import datasets
from mpdit.data.latents import LatentStore
from mpdit.data.preflight import check_enough
from mpdit.disk import npz
from mpdit.disk.files import written_aside
from mpdit.encoding.encoders import FolderPictures, Pictures, open_pictures
from mpdit.errors import ConfigError
from mpdit.evaluation import extractors
from mpdit.evaluation.extractors.extractor import Extractor
from mpdit.evaluation.metrics import accumulate
from mpdit.evaluation.realimages import Batch
from mpdit.progress import Progress
from mpdit.runtime.devices import prepare

AT_ONCE = 256
"""Images in memory while they are written."""


class Request(NamedTuple):
    """The inputs of a reference file.

    Attributes:
        data: a data set that fits in memory, by name; a folder; or ``hf:NAME[:SPLIT]``.
        size: the side that a folder's images are cropped to (pixels); None where it is known.
        store: the latent store that was encoded from ``data``: then all images are taken, in the
            store's size; otherwise the train split.
        extractor: the extractor of the mean and covariance that are added.
    """

    data: str
    size: int | None = None
    store: Path | None = None
    extractor: str | None = None


class _Images(NamedTuple):
    labels: Int64[np.ndarray, " images"]
    channels: int
    read: Callable[[range], Batch]


def make_reference(out: Path, request: Request) -> tuple[int, ...]:
    """Write a reference file: whole, or not at all.

    Returns:
        the shape of its images (N, H, W, C).

    Raises:
        ConfigError: when the file exists, or the images cannot be read or are not the store's.
        OSError: when there is no room.
    """
    if out.suffix != ".npz":
        raise ConfigError(f"{out} does not end in .npz")
    if out.exists():
        raise ConfigError(f"{out} already exists: delete it first, or choose another name")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {out.absolute().parent}")
    images = _in_memory(request) if _is_in_memory(request.data) else _pictures(request)
    check_enough(len(images.labels), request.data, EvaluateConfig())
    extractor = _extractor(request.extractor, images.channels)
    with written_aside(out) as aside:
        with Progress("write", len(images.labels)) as progress:
            npz.write(aside, _batches(images, progress), images.labels)
        if extractor is not None:
            _add_statistics(aside, len(images.labels), extractor)
        return npz.contents(aside).shape


def _is_in_memory(data: str) -> bool:
    return data in DATASETS and DATASETS[data].kind == "memory"


def _in_memory(request: Request) -> _Images:
    if request.size is not None or request.store is not None:
        raise ConfigError(f"{request.data} has its own size, and no store: omit --size and --store")
    images = datasets.load(DataConfig(name=request.data), "train")
    pixels = images.pixels
    return _Images(
        images.labels,
        pixels.shape[1],
        lambda rows: datasets.to_uint8(pixels[rows.start : rows.stop]),
    )


def _pictures(request: Request) -> _Images:
    pictures, size = open_pictures(request.data), request.size
    if request.store is not None:
        size = _size_in(request.store, pictures, size)
    elif isinstance(pictures, FolderPictures):
        pictures = FolderPictures(pictures.folder.split("train"))
    if size is None or size < 1:
        raise ConfigError("give --size, the side of the images in pixels, or --store")
    readers = ThreadPoolExecutor(min(16, os.cpu_count() or 1))

    def read(rows: range) -> Batch:
        found = list(readers.map(lambda row: pictures.pixels(row, size), rows))
        return np.ascontiguousarray(np.stack(found).transpose(0, 2, 3, 1))

    return _Images(pictures.labels, 3, read)


def _size_in(path: Path, pictures: Pictures, size: int | None) -> int:
    """The size of a store's images.

    Raises:
        ConfigError: when the store was not encoded from these images, or has another size.
    """
    store = LatentStore(path)
    source = store.manifest.source
    same = source.data != pictures.title or source.hash == pictures.hash
    if not same or not np.array_equal(store.labels, pictures.labels):
        raise ConfigError(
            f"{path} was not encoded from these images: it holds {len(store.labels):,} of "
            f"{store.manifest.classes:,} classes (source {source.data}, {source.hash}), these are "
            f"{len(pictures.labels):,} of {pictures.classes:,} ({pictures.title}, {pictures.hash})"
        )
    if size not in (None, store.manifest.pixels):
        raise ConfigError(f"--size {size}: the images of {path} have {store.manifest.pixels}")
    return store.manifest.pixels


def _extractor(name: str | None, channels: int) -> Extractor | None:
    if name is None:
        return None
    row = EXTRACTORS.find(name)
    if row.channels not in (None, channels):
        raise ConfigError(f"--extractor {name} takes grey images, but these have colours")
    return extractors.load(EvaluateConfig(extractor=row.name), prepare("float32"))


def _batches(images: _Images, progress: Progress) -> Iterator[Batch]:
    count = len(images.labels)
    for start in range(0, count, AT_ONCE):
        rows = range(start, min(start + AT_ONCE, count))
        yield images.read(rows)
        progress.advance(len(rows))


def _add_statistics(file: Path, count: int, extractor: Extractor) -> None:
    """Read the images back, and add the mean and covariance of their features."""

    def watched(progress: Progress) -> Iterator[Batch]:
        for batch in npz.images(file, extractor.batch_size):
            yield batch
            progress.advance(len(batch))

    with Progress(f"features of {extractor.name}", count) as progress:
        found = accumulate(part.pooled for part in extractor.look(watched(progress)))
    npz.add_statistics(file, *found, (extractor.name, extractor.weights))
