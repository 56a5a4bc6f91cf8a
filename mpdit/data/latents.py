"""The latent store: a folder of posteriors of a VAE, read a row at a time. No torch.

==================  ===============================================================================
manifest.json       `Manifest`: shape, statistics, source, checksums; written last
labels.npy          int64 (images)
moments-00000.npy   float16 (images, flips, 2, channels, size, size): the posterior's mean and
                    standard deviation of the image, and of the mirrored image where flips is 2
...                 further shards of ``shard_images`` images, the last with the rest
==================  ===============================================================================

Rows are read by ``preadv`` into the batch's own memory: the pages of a mapped file would count as
the process's own, and its resident memory would grow until it holds the whole store.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float16, Int64
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from mpdit.catalogue import Dataset
from mpdit.errors import ConfigError
from mpdit.invocation import typed

MANIFEST = "manifest.json"
LABELS = "labels.npy"
SAMPLE = 256
"""Rows that are checked when a store is opened; `verify` checks all rows."""


class LatentSource(BaseModel):
    """Where latents come from."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    data: str
    """What was encoded: ``folder``, ``hf:NAME:SPLIT``, or ``official`` (latents of the official
    code)."""
    hash: str
    """Sixteen hex digits of the SHA-256 of the images' names (of the official code's latents: of
    their labels), or the data set's fingerprint."""
    pixels: int | None
    """The side to which the images were cropped (ADM's centre crop)."""
    vae: str
    vae_hash: str | None
    """Sixteen hex digits of the SHA-256 of the VAE's weights."""
    content: str | None = None
    """For the official code's latents, sixteen hex digits of the SHA-256 of their files' contents.
    None for images, and in older stores."""


class StorePlan(BaseModel):
    """The plan of a store, known before encoding."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    format: Literal[1] = 1
    images: PositiveInt
    classes: PositiveInt
    channels: PositiveInt
    size: PositiveInt
    """The side of a latent."""
    flips: Literal[1, 2]
    shard_images: PositiveInt
    source: LatentSource

    @property
    def pixels(self) -> int:
        """The side of the images, as encoded, or as Stable Diffusion's VAEs decode them."""
        return self.source.pixels or 8 * self.size

    @property
    def row_shape(self) -> tuple[int, int, int, int]:
        """The shape of one orientation of an image: mean and std, channels, height, width."""
        return 2, self.channels, self.size, self.size

    @property
    def row_bytes(self) -> int:
        return 2 * int(np.prod(self.row_shape))

    @property
    def bytes(self) -> int:
        """The size of all moments."""
        return self.images * self.flips * self.row_bytes

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_images)

    def shard_range(self, shard: int) -> tuple[int, int]:
        """A shard's first image, and the image after its last."""
        start = shard * self.shard_images
        return start, min(start + self.shard_images, self.images)


class Manifest(StorePlan):
    """The description of a finished store."""

    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    """Statistics per channel of latents drawn from the posteriors, both orientations alike."""
    sha256: dict[str, str]
    """The checksum of every other file."""
    class_names: tuple[str, ...] | None = None
    """The classes' names by label; None where the source has none, and in version 0.1."""

    @model_validator(mode="after")
    def _per_channel(self) -> Manifest:
        if not len(self.mean) == len(self.std) == self.channels:
            held = f"{len(self.mean)} means and {len(self.std)} standard deviations"
            raise ValueError(f"{held} for {self.channels} channels")
        return self


def shard_name(shard: int) -> str:
    return f"moments-{shard:05d}.npy"


class LatentStore:
    """An opened store: its files exist and have the right sizes.

    All labels and a sample of the moments have been checked. The labels (8 bytes an image) are held
    in memory, the moments are not. Several threads may read at once.
    """

    def __init__(self, path: Path) -> None:
        """Open a store.

        Raises:
            ConfigError: saying what to run when there is none, or which file is damaged.
        """
        self.path = path
        self.manifest = manifest = read_manifest(path)
        self.labels: Int64[np.ndarray, " images"] = np.array(_map(path / LABELS, path))
        self._files: list[int] = []
        headers = []
        weakref.finalize(self, _close, self._files)
        for shard in range(manifest.shards):
            start, stop = manifest.shard_range(shard)
            file = path / shard_name(shard)
            moments = _map(file, path)
            if moments.shape != (stop - start, manifest.flips, *manifest.row_shape):
                raise _damaged(file, path, f"it holds an array of {moments.shape}")
            headers.append(moments.offset)
            self._files.append(os.open(file, os.O_RDONLY))
        self._headers = np.array(headers)  # bytes before each shard's first row
        self._check_labels()
        self._check_sample()

    def read(
        self, images: Int64[np.ndarray, " batch"], flips: Int64[np.ndarray, " batch"]
    ) -> Float16[np.ndarray, "batch 2 channels size size"]:
        """The moments of one orientation of each image.

        Raises:
            ConfigError: when a file has become shorter.
        """
        plan = self.manifest
        moments = np.empty((len(images), *plan.row_shape), np.float16)
        shards, rows = np.divmod(images, plan.shard_images)
        offsets = self._headers[shards] + (rows * plan.flips + flips) * plan.row_bytes
        for row, shard, offset in zip(moments, shards.tolist(), offsets.tolist(), strict=True):
            if os.preadv(self._files[shard], [row.data], offset) != plan.row_bytes:
                raise _damaged(self.path / shard_name(shard), self.path, "it has become shorter")
        return moments

    def read_shard(self, shard: int) -> Float16[np.ndarray, "images flips 2 channels size size"]:
        """All of a shard."""
        moments: np.ndarray = np.load(self.path / shard_name(shard))
        return moments

    def _check_labels(self) -> None:
        plan, labels, file = self.manifest, self.labels, self.path / LABELS
        if labels.shape != (plan.images,) or labels.dtype != np.int64:
            held = f"{labels.dtype} of shape {labels.shape}"
            raise _damaged(file, self.path, f"it holds {held}, not int64 of ({plan.images},)")
        wrong = np.flatnonzero((labels < 0) | (labels >= plan.classes))
        if len(wrong):
            what = f"image {wrong[0]} has label {labels[wrong[0]]}"
            raise _damaged(file, self.path, f"{what}, but there are {plan.classes} classes")

    def _check_sample(self) -> None:
        """Check evenly spaced rows of all shards, one at a time, as rows may be large."""
        plan = self.manifest
        for row in np.unique(np.linspace(0, plan.images - 1, SAMPLE).astype(np.int64)):
            if broken_rows(self.read(row[None], row[None] % plan.flips)).any():
                file = self.path / shard_name(int(row) // plan.shard_images)
                raise _damaged(file, self.path, f"image {row}: {NOT_MOMENTS}")

    def check_fits(self, spec: Dataset) -> None:
        """Check that a run on latents of this shape can read the store.

        Raises:
            ConfigError: naming both shapes.
        """
        plan = self.manifest
        held = (plan.channels, plan.size, plan.classes)
        wanted = (spec.channels, spec.size, spec.classes)
        if held != wanted:
            text = "{} channels, size {}, {} classes"
            raise ConfigError(
                f"{self.path} holds latents of {text.format(*held)}, "
                f"but the run is configured for {text.format(*wanted)}",
                "data",
            )


def read_manifest(path: Path) -> Manifest:
    """A store's manifest.

    Raises:
        ConfigError: when there is none, or it is damaged.
    """
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{path} is not a latent store: it has no {MANIFEST}. "
            f"Make it with: {typed('data', 'encode', 'IMAGES', path)}",
            "data.path",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(path / MANIFEST, path, f"{where}: {first['msg']}") from None


NOT_MOMENTS = "its means or standard deviations are not finite, or a standard deviation is negative"


def broken_rows(
    moments: Float16[np.ndarray, "rows *flips 2 channels size size"],
) -> Bool[np.ndarray, " rows"]:
    """Which rows no posterior can have: with a value that is not finite, or a negative std."""
    whole = np.isfinite(moments).all(axis=tuple(range(1, moments.ndim)))
    stds = moments[..., 1, :, :, :]
    broken: np.ndarray = ~whole | (stds < 0).any(axis=tuple(range(1, stds.ndim)))
    return broken


def verify(path: Path, advance: Callable[[int], None]) -> None:
    """Read a whole store: compare every file with its checksum, and check all moments.

    Args:
        advance: called with the number of images of each shard that was read.

    Raises:
        ConfigError: naming the damaged files.
    """
    store = LatentStore(path)
    manifest = store.manifest
    damaged = []
    for shard, name in enumerate([*map(shard_name, range(manifest.shards)), LABELS]):
        if checksum(path / name) != manifest.sha256.get(name):
            damaged.append(name)
        if name != LABELS:
            start, stop = manifest.shard_range(shard)
            wrong = np.flatnonzero(broken_rows(store.read_shard(shard)))
            if len(wrong) and name not in damaged:  # the store was made so
                raise _damaged(path / name, path, f"image {start + wrong[0]}: {NOT_MOMENTS}")
            advance(stop - start)
    if damaged:
        raise ConfigError(
            f"{path}: the contents of {', '.join(damaged)} have changed since they were written. "
            "Delete these files and manifest.json, and run the command that made the store again"
        )


def checksum(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _map(file: Path, store: Path) -> np.memmap:
    """Map a file as an array without reading it; a file that is cut off is refused."""
    try:
        array: np.memmap = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError) as error:
        raise _damaged(file, store, str(error)) from None
    return array


def _damaged(file: Path, store: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the latent store {store} is damaged: {file.name}: {why}. "
        "Delete that file and manifest.json, and run the command that made the store again",
        "data.path",
    )


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
