"""One shard of a latent store: its source, how it is written, and whether it is done."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Int64
from pydantic import BaseModel, ConfigDict, ValidationError

from mpdit.data.latents import StorePlan, broken_rows, checksum, shard_name
from mpdit.disk.files import written_aside
from mpdit.errors import ConfigError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel."""


class Encoder(ABC):
    """The source of a store's moments."""

    plan: StorePlan
    labels: Int64[np.ndarray, " images"]
    statistics: Statistics | None = None
    """The statistics that come with the source."""
    class_names: tuple[str, ...] | None = None
    """The classes' names by label, where the source has them."""

    @abstractmethod
    def moments(
        self, start: int, stop: int, advance: Callable[[int], None]
    ) -> Float16[np.ndarray, "images flips 2 channels size size"]:
        """Moments of images ``start`` to ``stop``; ``advance`` is called with numbers of images."""

    @abstractmethod
    def content(self, start: int, stop: int) -> str:
        """A hash of the source of images ``start`` to ``stop``; their files may be read."""

    def stamp(self, start: int, stop: int) -> str | None:
        """A text that changes when `content` may change, without reading; None: not reliable."""
        return self.content(start, stop)


class Done(BaseModel):
    """The record beside a finished shard: its checksum, and sums over its sampled latents.

    Attributes:
        images, stamp: `Encoder.content` and `Encoder.stamp` of its images; None in stores of older
            versions, and where there was no reliable stamp.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    sha256: str
    total: tuple[float, ...]
    squares: tuple[float, ...]
    images: str | None = None
    stamp: str | None = None


def record_file(path: Path, shard: int) -> Path:
    """The file of a shard's record."""
    return (path / shard_name(shard)).with_suffix(".json")


def record(path: Path, shard: int) -> Done | None:
    """The record of a finished shard, whatever its images."""
    try:
        held = Done.model_validate_json(record_file(path, shard).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return held if (path / shard_name(shard)).exists() else None


def done(encoder: Encoder, plan: StorePlan, path: Path, shard: int) -> Done | None:
    """The record of a finished shard, if it was made from these images.

    The images' files are read only where a stamp has changed.
    """
    held = record(path, shard)
    if held is None or held.images is None:
        return held
    stamp = encoder.stamp(*plan.shard_range(shard))
    if stamp is not None and stamp == held.stamp:
        return held
    if encoder.content(*plan.shard_range(shard)) != held.images:
        return None
    held = held.model_copy(update={"stamp": stamp})
    write(record_file(path, shard), held.model_dump_json())
    return held


def make_shard(
    encoder: Encoder, plan: StorePlan, path: Path, shard: int, advance: Callable[[int], None]
) -> None:
    """Encode a shard, write it, and then its record.

    Raises:
        ConfigError: when latents are not finite, or images change meanwhile.
        OSError: when the disk is full.
    """
    start, stop = plan.shard_range(shard)
    stamp = encoder.stamp(start, stop)
    moments = encoder.moments(start, stop, advance)
    broken = np.flatnonzero(broken_rows(moments))
    if len(broken):
        raise ConfigError(
            f"the latents of image {start + broken[0]} (of {len(broken)} in shard {shard}) "
            "are not finite in float16: the images, the VAE or the latents are broken"
        )
    images = encoder.content(start, stop)
    if stamp is not None and stamp != encoder.stamp(start, stop):
        raise ConfigError(
            f"images {start} to {stop - 1} were changed while they were encoded: "
            "run the same command again"
        )
    file = path / shard_name(shard)
    write(file, moments)
    mean, std = (moments[:, :, part].astype(np.float64) for part in (0, 1))
    axes = (0, 1, 3, 4)
    made = Done(
        sha256=checksum(file),
        total=tuple(mean.sum(axes).tolist()),
        squares=tuple((mean**2 + std**2).sum(axes).tolist()),  # E[x²] of x ~ N(mean, std²)
        images=images,
        stamp=stamp,
    )
    write(record_file(path, shard), made.model_dump_json())


def write(file: Path, content: str | np.ndarray) -> None:
    """Write text, or an array as .npy, aside; sync; rename."""
    try:
        with written_aside(file) as temporary, temporary.open("wb") as handle:
            if isinstance(content, str):
                handle.write(content.encode())
            else:
                np.save(handle, content)
    except OSError as error:  # numpy's error for a short write names neither reason nor file
        why = error.errno or errno.ENOSPC
        raise OSError(why, os.strerror(why), str(file)) from None
