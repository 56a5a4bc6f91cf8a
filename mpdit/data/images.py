"""Folders of image files: what is in them, and how a file becomes an array. No torch."""

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
from PIL import Image

from mpdit.errors import ConfigError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}

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
            ConfigError: when there is no such folder, or no image in it.
        """
        if not root.is_dir():
            raise ConfigError(f"there is no folder {root}", "data.path")
        folders = sorted(e.name for e in os.scandir(root) if e.is_dir() and e.name[0] != ".")
        found = {name: _image_names(root / name) for name in folders or [""]}
        found = {name: images for name, images in found.items() if images}
        if not found:
            raise ConfigError(
                f"no images ({', '.join(SUFFIXES)}) in {root} or the folders in it", "data.path"
            )
        names = tuple(os.path.join(c, name) for c, images in found.items() for name in images)  # noqa: PTH118
        counts = [len(images) for images in found.values()]
        return cls(root, names, np.repeat(np.arange(len(counts)), counts), tuple(found))

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

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of the names, in their order."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]

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
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ConfigError(f"{file} cannot be read as an image: {error}") from None


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


def to_array(
    image: Image.Image, size: int, channels: int
) -> UInt8[np.ndarray, "channels size size"]:
    """Grey (1 channel) or RGB (3), cropped."""
    pixels = np.asarray(centre_crop(image.convert(MODES[channels]), size))
    return np.ascontiguousarray(pixels.reshape(size, size, channels).transpose(2, 0, 1))


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


def _image_names(folder: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(folder) if e.name.lower().endswith(SUFFIXES))
