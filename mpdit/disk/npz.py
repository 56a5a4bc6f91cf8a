"""ADM's .npz layout, in batches: images (arr_0) and labels (arr_1), or statistics (mu, sigma).

Sample sets and reference files have this layout (guided-diffusion's evaluations); `numpy.load`
reads a whole file at once. No torch.
"""

from __future__ import annotations

import errno
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from mpdit.disk.identity import Mark, parse_mark
from mpdit.errors import ConfigError

DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError),
    *(KeyError, RuntimeError),  # a missing name; an archive that seems encrypted
)
EXTRACTOR = "extractor"
"""The array that names the extractor of mu and sigma; only files of mpdit have it."""
SYMMETRIC = 1e-6
"""The most, relative to its largest value, that a covariance may differ from its transpose."""
MOST_PIXELS = 2**22
"""The most values of one image: a few compressed bytes could unfold to any number of zeros."""
MOST_BYTES = 1024
"""The most bytes of one value, such as an extractor's name."""
MOST_FEATURES = 2**14
"""The most features whose covariance a file may hold: 2 GiB."""
Images = UInt8[np.ndarray, "images height width channels"]


class DamagedError(ConfigError):
    """A file that cannot be read to its end, or holds other bytes than it was written with."""


class Contents(NamedTuple):
    """The contents of a file: its arrays' names, and the shape of its images, if it has any.

    Attributes:
        checksum: the CRC-32 of the images that the file stores.
        usable: whether the images have the right form: uint8 (N, H, W, C), row by row.
        mark: the run and data that the images belong to; empty where the file does not say.
    """

    arrays: frozenset[str]
    shape: tuple[int, ...] = ()
    dtype: str = ""
    checksum: int = 0
    usable: bool = False
    mark: Mark = MappingProxyType({})


def contents(file: Path) -> Contents:
    """Read a file's contents without its arrays.

    Raises:
        DamagedError: when it is not an .npz file.
    """
    with _whole(file), zipfile.ZipFile(file) as archive:
        held = frozenset(name.removesuffix(".npy") for name in archive.namelist())
        mark = parse_mark(archive.comment)
        if archive.comment.startswith(b"{") and not mark:
            raise ValueError("its comment is torn")  # zipfile passes over the missing end
        if "arr_0" not in held:
            return Contents(held)
        entry = archive.getinfo("arr_0.npy")
        with archive.open(entry) as array:
            shape, by_columns, dtype = _header(array)
            header = array.tell()
        if math.prod(shape[1:]) > MOST_PIXELS:
            raise ValueError(f"images of {shape[1:]} are larger than {MOST_PIXELS:,} values")
        usable = dtype == np.uint8 and len(shape) == 4 and not by_columns
        if usable and (size := entry.file_size - header) != math.prod(shape):
            raise ValueError(f"arr_0 has {size} bytes, but its shape is {shape}")
    return Contents(held, shape, str(dtype), entry.CRC, usable, mark)


def images(file: Path, at_once: int) -> Iterator[Images]:
    """Yield the usable images of a file, ``at_once`` at a time; each is read once.

    Raises:
        DamagedError: when they cannot be read to their end, or differ from those written.
    """
    with _whole(file), zipfile.ZipFile(file) as archive, archive.open("arr_0.npy") as array:
        (count, *image), _, _ = _header(array)
        size = math.prod(image)
        for start in range(0, count, at_once):
            rows = min(at_once, count - start)
            read = bytearray(array.read(rows * size))
            yield np.frombuffer(read, np.uint8).reshape(rows, *image)


def statistics(
    file: Path,
) -> tuple[Float64[np.ndarray, " features"], Float64[np.ndarray, "features features"]]:
    """The mean and covariance of a file that has them.

    Raises:
        DamagedError: when they cannot be read, or are no mean and covariance of the same features.
    """
    most = MOST_FEATURES
    with _whole(file), zipfile.ZipFile(file) as archive:
        mean = _read(archive, "mu", most).astype(np.float64)
        covariance = _read(archive, "sigma", most**2).astype(np.float64)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mu has shape {mean.shape}, sigma {covariance.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("mu or sigma is not finite")
        largest = np.abs(covariance).max(initial=0)
        if np.abs(covariance - covariance.T).max(initial=0) > SYMMETRIC * largest:
            raise ValueError("sigma is not symmetric")
        if (np.diag(covariance) < 0).any():
            raise ValueError("sigma has negative variances")
    return mean, covariance


def extractor(file: Path) -> tuple[str, str] | None:
    """The extractor of a file's mean and covariance: its name and the hash of its weights.

    None where the file does not say, as ADM's files do not.

    Raises:
        DamagedError: when the file cannot be read.
    """
    with _whole(file), zipfile.ZipFile(file) as archive:
        if f"{EXTRACTOR}.npy" not in archive.namelist():
            return None
        name, weights = _read(archive, EXTRACTOR, 2).tolist()
    return str(name), str(weights)


def add_statistics(
    file: Path,
    mean: Float64[np.ndarray, " features"],
    covariance: Float64[np.ndarray, "features features"],
    extractor: tuple[str, str],
) -> None:
    """Add to a file the statistics of its images, and the extractor that made them.

    Raises:
        OSError: when there is no room.
    """
    added = {"mu": mean, "sigma": covariance, EXTRACTOR: np.array(extractor)}
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, values in added.items():
            with archive.open(f"{name}.npy", "w") as array:
                np.lib.format.write_array(array, values, allow_pickle=False)


def labels(file: Path) -> Int64[np.ndarray, " images"]:
    """The labels of a file that has them.

    Raises:
        DamagedError: when they cannot be read, or are not one for each image.
    """
    with _whole(file), zipfile.ZipFile(file) as archive:
        with archive.open("arr_0.npy") as array:
            count = _header(array)[0][0]
        found: Int64[np.ndarray, " images"] = _read(archive, "arr_1", count).astype(np.int64)
        if found.shape != (count,):
            raise ValueError(f"arr_1 has shape {found.shape}, for {count} images")
    return found


def write(
    file: Path,
    batches: Iterable[Images],
    labels: Int64[np.ndarray, " images"],
    mark: Mark | None = None,
) -> None:
    """Write images that come in batches, and their labels, compressed.

    Args:
        mark: the run and data that they belong to; kept as the archive's comment.

    Raises:
        OSError: when there is no room.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if mark:
            archive.comment = json.dumps(mark).encode()
        with archive.open("arr_0.npy", "w", force_zip64=True) as array:
            for number, batch in enumerate(batches):
                if not number:
                    shape = (len(labels), *batch.shape[1:])
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(array, header)
                array.write(np.ascontiguousarray(batch).data)
        with archive.open("arr_1.npy", "w") as array:
            np.lib.format.write_array(array, labels, allow_pickle=False)


def read_array(stream: IO[bytes], most: int) -> np.ndarray:
    """The array of an .npy, which may have at most ``most`` values by its header.

    Raises:
        ValueError: when it has more values, holds objects, or is not an array.
    """
    shape, _, dtype = _header(stream)
    if math.prod(shape) > most or dtype.itemsize > MOST_BYTES:
        raise ValueError(
            f"an array of shape {shape} and type {dtype} has more than {most:,} values"
        )
    stream.seek(0)
    found: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return found


def _read(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
    with archive.open(f"{name}.npy") as array:
        return read_array(array, most)


def _header(array: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The header of an opened .npy: shape, whether it is stored column by column, type."""
    np.lib.format.read_magic(array)
    return np.lib.format.read_array_header_1_0(array)


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Turn any read error into DamagedError."""
    try:
        yield
    except DAMAGES as error:
        raise DamagedError(f"{file} is damaged: {error}") from None
    except OSError as error:
        # a position outside the file, or an unknown kind of compression
        if error.errno not in (errno.EINVAL, None):
            raise
        raise DamagedError(f"{file} is damaged: {error}") from None
