"""Folders of image files: listing them, and reading a file as an array. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from mpdit.disk.cachefolder import cache_folder
from mpdit.disk.stamp import Stamp
from mpdit.errors import ConfigError, nearest
from mpdit.invocation import typed
from mpdit.text import count

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}
VIA = {"LAB": "RGB", "La": "LA", "RGBa": "RGBA"}
"""Pillow's modes that it converts to grey and RGB in two steps."""
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", *VIA)
"""Modes that Pillow converts to 8 bits, dropping alpha."""
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
MOST_PIXELS = 2**25
"""The most pixels of an image after scaling, before cropping; Pillow takes 4 bytes a pixel."""

Split = Literal["train", "test"]

TEST_EVERY = 10


@dataclass(frozen=True)
class ImageFolder:
    """The image files under ``root``, by class and name; the files themselves stay unread.

    Attributes:
        names: paths below ``root``, in the order of classes, then of names.
        classes: the sub-folders' names, sorted; a folder without any is one class.
    """

    root: Path
    names: tuple[str, ...]
    labels: Int64[np.ndarray, " images"]
    classes: tuple[str, ...]

    @classmethod
    def scan(cls, root: Path) -> ImageFolder:
        """List a folder with a sub-folder per class, or a flat one.

        Raises:
            ConfigError: when there is no such folder, no image in it, or a file without a class.
        """
        folder, problems = cls.survey(root)
        if problems:
            raise ConfigError(summary(problems, root), "data.path")
        return folder

    @classmethod
    def survey(cls, root: Path) -> tuple[ImageFolder, list[str]]:
        """List a folder, with one line for each problem.

        Raises:
            ConfigError: when the folder does not exist, or has no image.
        """
        if not root.is_dir():
            beside = root.absolute().parent
            known = []
            if os.access(beside, os.R_OK | os.X_OK):
                known = [path.name for path in beside.iterdir() if path.is_dir()]
            raise ConfigError(
                f"there is no folder {root.absolute()}.{nearest(root.name, known)}", "data.path"
            )
        found, problems = _listing(root)
        counts = [len(images) for images in found.values()]
        if not problems and not any(counts):
            raise ConfigError(
                f"no images ({', '.join(SUFFIXES)}) in {root} or the folders in it", "data.path"
            )
        names = tuple(os.path.join(c, name) for c, images in found.items() for name in images)  # noqa: PTH118
        labels = np.repeat(np.arange(len(counts)), counts)
        return cls(root, names, labels, tuple(found)), problems

    def split(self, split: Split) -> ImageFolder:
        """Every tenth image of each class is for testing, the others are for training."""
        firsts = np.searchsorted(self.labels, self.labels)  # of each image's class
        of_class = np.arange(len(self.labels)) - firsts
        chosen = (of_class % TEST_EVERY == TEST_EVERY - 1) == (split == "test")
        return self.take(np.flatnonzero(chosen))

    def take(self, rows: Int64[np.ndarray, " rows"]) -> ImageFolder:
        """Some of the images, by number."""
        names = tuple(self.names[i] for i in rows)
        return ImageFolder(self.root, names, self.labels[rows], self.classes)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes' names; None for a flat folder."""
        return None if self.classes == ("",) else self.classes

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of the names, in their order."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]

    def cache_file(self, kind: str, about: str = "") -> Path | None:
        """The cache file of a value computed from these files, until a name or `Stamp` changes.

        Args:
            kind: the beginning of the file's name.
            about: what else the cached value depends on.

        Returns:
            the file; None where an image has only just changed.
        """
        root = self.root.resolve()
        digest = hashlib.sha256(f"{root}\0{about}".encode())
        for name in self.names:
            stamp = Stamp.of((root / name).stat())
            if not stamp.settled:
                return None
            digest.update(f"{name}\0{' '.join(map(str, stamp))}\n".encode())
        digest.update(self.labels.tobytes())
        return cache_folder() / f"{kind}-{digest.hexdigest()[:16]}.txt"

    def pixels(
        self, index: int, size: int, channels: int
    ) -> UInt8[np.ndarray, "channels size size"]:
        """One image, cropped to a square of ``size`` pixels.

        Raises:
            ConfigError: naming the file, when it cannot be read.
        """
        file = self.root / self.names[index]
        try:
            with Image.open(file) as image:
                return to_array(image, size, channels)
        except Exception as error:  # Pillow raises errors of any kind on damaged files
            raise ConfigError(unreadable(file, error)) from None


class ImageReader:
    """Reads images of a folder, cropped to squares of ``size`` pixels, in several threads."""

    def __init__(self, folder: ImageFolder, size: int, channels: int) -> None:
        self.folder, self.size, self.channels = folder, size, channels
        self._decoders = ThreadPoolExecutor(min(16, os.cpu_count() or 1))

    def read(self, rows: Iterable[int]) -> UInt8[np.ndarray, "rows channels size size"]:
        """The images with these numbers.

        Raises:
            ConfigError: naming the file, when one cannot be read.
        """

        def decode(row: int) -> UInt8[np.ndarray, "channels size size"]:
            return self.folder.pixels(row, self.size, self.channels)

        return np.stack(list(self._decoders.map(decode, rows)))

    def close(self) -> None:
        self._decoders.shutdown()


def unreadable(file: Path, error: Exception) -> str:
    """The message for an image file that could not be read."""
    if isinstance(error, UnidentifiedImageError):
        why = "its format is unknown"
    else:
        why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return f"{file} cannot be read as an image: {why}"


def summary(problems: list[str], root: Path) -> str:
    """The first of several problems, and how to list the others."""
    if len(problems) == 1:
        return problems[0]
    others = count(len(problems) - 1, "more problem")
    listing = typed("data", "check", root)
    return f"{problems[0]} ({others}; to list them: {listing})"


def to_array(
    image: Image.Image, size: int, channels: int
) -> UInt8[np.ndarray, "channels size size"]:
    """Grey (1 channel) or RGB (3), cropped.

    Raises:
        ValueError: when the image's mode has no 8-bit counterpart, or it is too thin.
        Exception: of any kind, when the file is damaged.
    """
    check_shape(image.size, size)
    pixels = np.asarray(centre_crop(to_mode(image, MODES[channels]), size))
    return np.ascontiguousarray(pixels.reshape(size, size, channels).transpose(2, 0, 1))


def check_shape(shape: tuple[int, int], size: int) -> None:
    """Check that an image of this width and height can be scaled to a side of ``size`` pixels.

    Raises:
        ValueError: when it is so thin that its long side would become too long.
    """
    long = round(size * max(shape) / min(shape))
    if long * size > MOST_PIXELS:
        raise ValueError(
            f"{shape[0]}×{shape[1]} pixels are too thin: with the short side scaled to {size}, "
            f"the long one has {long:,} (at most {MOST_PIXELS // size:,})"
        )


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image's first frame in mode ``L`` or ``RGB``. Alpha is dropped; 16-bit grey is v >> 8.

    Raises:
        ValueError: when the image's mode has no 8-bit counterpart.
        Exception: of any kind, when the file is damaged.
    """
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM")):
        if isinstance(image, TiffImageFile):
            tags = image.tag_v2
            if tags.get(BITSPERSAMPLE) != (16,) or tags.get(PHOTOMETRIC_INTERPRETATION) != 1:
                # Pillow opens both in mode I;16, neither scaled nor inverted
                raise ValueError(f"mode {image.mode}, but of 12 bits, or with 0 as white")
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode not in EIGHT_BITS:
        raise ValueError(f"mode {image.mode} has no fixed range: save it as 8- or 16-bit grey")
    image.info.pop("transparency", None)  # it changes no pixel, and makes Pillow warn
    if image.mode in VIA:
        image = image.convert(VIA[image.mode])
    return image.convert(mode)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square, its side scaled to ``size``, as ADM does it.

    Halved by area averages while that leaves twice the size, then bicubic (Dhariwal and Nichol
    2021, guided_diffusion/image_datasets.py), so that FIDs are those of the field.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _listing(root: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The names of each class's images, and one line for each problem."""
    problems: list[str] = []
    images, folders = _entries(root, problems)
    if not folders:
        return {"": images}, problems
    if images:
        problems.append(
            f"{root / images[0]} lies beside sub-folders ({folders[0]}), which are the classes: "
            f"{len(images):,} image{'s have' if len(images) > 1 else ' has'} no class"
        )
    found = {}
    for name in folders:
        before = len(problems)
        found[name], nested = _entries(root / name, problems)
        deeper = [image for sub in nested if (image := _first_image(root / name / sub, problems))]
        if deeper:
            problems.append(f"{deeper[0]} lies too deep: a class is one folder ({root / name})")
        if not found[name] and len(problems) == before:
            problems.append(f"the class {root / name} has no images ({', '.join(SUFFIXES)})")
    return found, problems


def _entries(folder: Path, problems: list[str]) -> tuple[list[str], list[str]]:
    """The images and the folders in a folder, sorted, without hidden ones (macOS's ``._x.png``)."""
    images: list[str] = []
    folders: list[str] = []
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            kind = folders if entry.is_dir() else images
            if kind is images and not entry.name.lower().endswith(SUFFIXES):
                continue
            if os.fsencode(entry.name).decode(errors="ignore") != entry.name:
                problems.append(f"{os.fsencode(entry.path)!r}: the name is not UTF-8")
            elif kind is images and not entry.is_file():
                problems.append(f"{entry.path} is neither a file nor a link to one")
            else:
                kind.append(entry.name)
    except OSError as error:
        problems.append(f"the folder {folder} cannot be read: {error.strerror}")
    return images, folders


def _first_image(folder: Path, problems: list[str]) -> Path | None:
    """An image in a folder or below it."""
    images, folders = _entries(folder, problems)
    if images:
        return folder / images[0]
    deeper = (_first_image(folder / name, problems) for name in folders)
    return next((image for image in deeper if image), None)
