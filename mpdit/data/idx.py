"""IDX files, MNIST's format: images and labels, checked wholly. No torch."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from mpdit.errors import ConfigError

BYTES = b"\0\0\x08"
"""The first bytes of a file of unsigned bytes; the next byte is its number of axes."""


def read_split(
    images: Path, labels: Path, size: int, classes: int
) -> tuple[UInt8[np.ndarray, "images size size"], Int64[np.ndarray, " images"]]:
    """A split of square grey images, and their labels.

    Raises:
        ConfigError: naming the file that is damaged, or holds something else.
    """
    pixels, numbers = _read(images), _read(labels).astype(np.int64)
    if pixels.ndim != 3 or pixels.shape[1:] != (size, size):
        shape = "×".join(map(str, pixels.shape))
        raise ConfigError(f"{images} holds {shape} bytes, not N×{size}×{size}", "data.path")
    if not len(pixels):
        raise ConfigError(f"{images} holds no images", "data.path")
    if numbers.shape != (len(pixels),):
        count = "×".join(map(str, numbers.shape))
        raise ConfigError(
            f"{labels} holds {count} labels, but {images} {len(pixels)} images", "data.path"
        )
    wrong = np.flatnonzero(numbers >= classes)
    if len(wrong):
        raise ConfigError(
            f"{labels}: image {wrong[0]} has label {numbers[wrong[0]]}, "
            f"but there are {classes} classes",
            "data.path",
        )
    return pixels, numbers


def _read(file: Path) -> UInt8[np.ndarray, "*axes"]:
    """A file of unsigned bytes: two zeros, type 8, rank, big-endian sizes, the bytes."""
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(file, str(error)) from None
    if raw[:3] != BYTES or len(raw) < 4:
        raise _damaged(file, "it is not an IDX file of bytes")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise _damaged(file, "it ends within its header")
    shape = [int(n) for n in np.frombuffer(raw, ">u4", raw[3], offset=4)]
    told, held = int(np.prod(shape, dtype=object)), len(raw) - start
    if told != held:
        raise _damaged(file, f"it holds {held} bytes, but its header says {told} (of {shape})")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _damaged(file: Path, why: str) -> ConfigError:
    return ConfigError(f"{file} is damaged: {why}", "data.path")
