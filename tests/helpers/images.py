"""Folders of noise images, and an extractor that takes images of any kind."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mpdit.config import DataConfig
from mpdit.evaluation.extractors import classifier
from mpdit.evaluation.extractors.extractor import Extractor, Features

CPU = torch.device("cpu")
ADM = "VIRTUAL_imagenet128_labeled.npz"


class Grey(Extractor):
    """The digits' classifier on one channel of images of any kind."""

    def look(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        return super().look(batch[..., :1] for batch in batches)


def grey(batch_size: int = 500) -> Grey:
    return Grey(**{**vars(classifier.load("digits", CPU)), "batch_size": batch_size})


def folder_data(path: Path, size: int = 8, classes: int = 1) -> DataConfig:
    shape = {"channels": 1, "size": size, "classes": classes}
    return DataConfig.model_validate({"name": "folder", "path": str(path), **shape})


def bitmaps(folder: Path, seed: int) -> DataConfig:
    """Thirty noise images whose names, sizes and times of change are those of any other seed."""
    (folder / "a").mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (30, 8, 8), np.uint8)
    for number, image in enumerate(images):
        file = folder / "a" / f"{number:02}.bmp"
        Image.fromarray(image).save(file)
        os.utime(file, ns=(10**18, 10**18))
    return folder_data(folder)


def class_folders(
    folder: Path, names: Sequence[str], count: int, shape: tuple[int, ...] = (8, 8)
) -> Path:
    """``count`` noise images in a sub-folder of each name, other ones in each."""
    random, digits = np.random.default_rng(0), len(str(count - 1))
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:0{digits}}.png")
    return folder
