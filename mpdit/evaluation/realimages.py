"""Real images to compare with: in batches, and under the hash of their content. No torch."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from mpdit.catalogue import DATASETS
from mpdit.config import DataConfig
from mpdit.data import content, datasets
from mpdit.data.images import ImageReader, Split
from mpdit.data.latents import checksum
from mpdit.disk import npz
from mpdit.disk.cachefolder import cache_folder
from mpdit.disk.stamp import stamps

Batch = UInt8[np.ndarray, "batch height width channels"]
Choose = Callable[[Int64[np.ndarray, " images"]], Int64[np.ndarray, " rows"]]
Record = dict[str, str | int | None]
CHECKED_AT_ONCE = 256
"""Images of a reference file in memory while it is checked."""


class RealImages(ABC):
    """Real images as an extractor takes them.

    Attributes:
        data, split, count: their data set and split in records, and their number.
    """

    data: str
    split: str
    count: int

    @property
    @abstractmethod
    def hash(self) -> str | None:
        """Sixteen hex digits of the content; None while it is not known without reading them."""

    @abstractmethod
    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all images in their order. Afterwards the hash is known."""

    def record(self) -> Record:
        """Their record in evaluation.jsonl, once the hash is known."""
        return {"data": self.data, "split": self.split, "count": self.count, "hash": self.hash}


def of_split(data: DataConfig, split: Split, choose: Choose | None = None) -> RealImages:
    """A split of a data set of images, or a part of it.

    Args:
        choose: returns which images, by their labels; None chooses all.

    Raises:
        ConfigError: when it is missing or damaged.
    """
    kind = _Files if DATASETS.find(data.name).kind == "folder" else _InMemory
    return kind(data, split, choose)


def in_proportion(labels: Int64[np.ndarray, " images"], most: int) -> Int64[np.ndarray, " rows"]:
    """The indices of ``most`` images in the classes' own proportions, in their order, or of all."""
    count = min(most, len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.arange(count) * len(labels) // max(1, count)])


def like(
    labels: Int64[np.ndarray, " images"], wanted: Int64[np.ndarray, " samples"]
) -> Int64[np.ndarray, " rows"]:
    """The indices of images with the labels of samples 0 … n - 1, none twice, in their order.

    n is the largest number for which every class has enough images. Samples of classes without any
    image are skipped.
    """
    there = np.bincount(labels, minlength=int(wanted.max(initial=0)) + 1)
    wanted = wanted[there[wanted] > 0]
    order = np.argsort(wanted, kind="stable")
    before = np.empty_like(order)  # of each sample, the samples of its class before it
    before[order] = np.arange(len(order)) - np.searchsorted(wanted[order], wanted[order])
    lacking = np.flatnonzero(before >= there[wanted])
    counts = np.bincount(wanted[: lacking[0]] if len(lacking) else wanted)
    members = (np.flatnonzero(labels == label) for label in range(len(counts)))
    chosen = [m[np.arange(n) * len(m) // max(1, n)] for m, n in zip(members, counts, strict=True)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


class _InMemory(RealImages):
    """A small data set."""

    def __init__(self, data: DataConfig, split: Split, choose: Choose | None) -> None:
        images = datasets.load(data, split)
        if choose is not None:
            rows = choose(images.labels)
            images = datasets.Images(images.pixels[rows], images.labels[rows])
        self._images = images
        self.data, self.split, self.count = data.name, split, len(images.labels)

    @property
    def hash(self) -> str:
        return self._images.hash

    def batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, self.count, size):
            yield datasets.to_uint8(self._images.pixels[start : start + size])


class _Files(RealImages):
    """Image files, of which only a batch is in memory.

    Their content is hashed while they are read, and remembered (`ImageFolder.cache_file`).
    """

    def __init__(self, data: DataConfig, split: Split, choose: Choose | None) -> None:
        folder = datasets.image_folder(data).split(split)
        if choose is not None:
            folder = folder.take(choose(folder.labels))
        self._folder, self._spec = folder, data.spec
        self._hash: str | None = None
        self.data, self.split, self.count = data.name, split, len(folder.names)

    @cached_property
    def _memory(self) -> Path | None:
        """The file that remembers the hash; None where an image has only just changed."""
        return self._folder.cache_file("folder", f"{self._spec.channels} {self._spec.size}")

    @property
    def hash(self) -> str | None:
        if self._hash is None:
            self._hash = content.recall(self._memory)
        return self._hash

    def batches(self, size: int) -> Iterator[Batch]:
        # stamps before the content: a file that changes meanwhile must not keep this hash
        digest, memory = hashlib.sha256(), self._memory
        with closing(ImageReader(self._folder, self._spec.size, self._spec.channels)) as reader:
            for start in range(0, self.count, size):
                batch = reader.read(range(start, min(start + size, self.count)))
                digest.update(batch.tobytes())
                yield np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        digest.update(self._folder.labels.tobytes())
        self._hash = digest.hexdigest()[:16]
        content.remember(memory, self._hash)


class AdmImages(RealImages):
    """The images of a file in ADM's layout."""

    split = "reference"

    def __init__(self, file: Path, count: int) -> None:
        self._file = file
        self.data, self.count = file.name, count

    @cached_property
    def hash(self) -> str:
        return checksum(self._file)[:16]

    def batches(self, size: int) -> Iterator[Batch]:
        return npz.images(self._file, size)

    def check_whole(self) -> None:
        """Read all images, unless they were read before and the file has not changed.

        Raises:
            DamagedError: when they cannot be read to their end.
        """
        stamp = stamps([self._file])
        memory = cache_folder() / f"whole-{stamp}.txt" if stamp else None
        if memory and memory.exists():
            return
        for _ in self.batches(CHECKED_AT_ONCE):
            pass
        content.remember(memory, "whole")
