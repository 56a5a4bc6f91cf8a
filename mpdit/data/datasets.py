"""The data sets as arrays: where they lie, whether they exist, and their splits. No torch.

Pixel values are float32 in [-1, 1]; every data set has a train and a test split that no seed moves.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from mpdit.catalogue import DATASETS, load_code
from mpdit.config import DataConfig
from mpdit.data import idx
from mpdit.data.foldercheck import check_images
from mpdit.data.images import MODES, ImageFolder, Split
from mpdit.data.latents import LatentStore
from mpdit.errors import ConfigError
from mpdit.invocation import typed
from mpdit.text import expanded

FASHION_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FASHION_DEFAULT = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Images:
    """One split in memory."""

    pixels: Float32[np.ndarray, "images channels height width"]
    labels: Int64[np.ndarray, " images"]

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of pixels and labels."""
        digest = hashlib.sha256(self.pixels.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()[:16]


def to_uint8(
    pixels: Float32[np.ndarray, "images channels height width"],
) -> UInt8[np.ndarray, "images height width channels"]:
    """[-1, 1] → 0..255, rounded, channels last."""
    return np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def check_available(data: DataConfig) -> None:
    """Check that the data can be read on this machine. Of the kinds of data, only image files are
    read whole.

    Raises:
        ConfigError: saying what to install, or where to put it.
    """
    if (check := DATASETS.find(data.name).check) is not None:
        load_code(check)(data)


def is_latents(data: DataConfig) -> bool:
    """Whether the images are a VAE's latents."""
    return DATASETS.find(data.name).kind == "latents"


def load(data: DataConfig, split: Split) -> Images:
    """Read one split of a data set of kind ``memory``.

    Raises:
        ConfigError: when it is missing or damaged, or does not match its row.
    """
    row, spec = DATASETS.find(data.name), data.spec
    pixels, labels = row.load()(data, split)
    what = f"the {split} split of {row.name}"
    if labels.ndim != 1 or labels.dtype != np.int64 or not len(labels):
        held = f"{labels.dtype} {labels.shape}"
        raise ConfigError(f"{what}: labels are {held}, not int64 (images)", "data.name")
    shape = (len(labels), spec.channels, spec.size, spec.size)
    if pixels.shape != shape or pixels.dtype != np.float32:
        held = f"{pixels.dtype} {pixels.shape}"
        raise ConfigError(f"{what}: pixels are {held}, not float32 {shape}", "data.name")
    if not 0 <= labels.min() <= labels.max() < spec.classes:
        span = f"{labels.min()} to {labels.max()}"
        raise ConfigError(
            f"{what}: labels go from {span}, but there are {spec.classes} classes", "data.name"
        )
    if not np.abs(pixels).max() <= 1:
        raise ConfigError(f"{what}: pixels are not all in [-1, 1]", "data.name")
    return Images(pixels, labels)


def latent_store(data: DataConfig) -> LatentStore:
    """The latent store of a data set, of the config's shape.

    Raises:
        ConfigError: saying what to run when there is none; when it is damaged or of another shape.
    """
    store = LatentStore(place(data))
    store.check_fits(data.spec)
    return store


def image_folder(data: DataConfig) -> ImageFolder:
    """The image files of a data set, both splits.

    Raises:
        ConfigError: when there are none, or their number of classes is not the config's.
    """
    spec = data.spec
    if spec.channels not in MODES:
        raise ConfigError(f"images have 1 or 3 channels, not {spec.channels}", "data.channels")
    folder = ImageFolder.scan(place(data))
    if len(folder.classes) != spec.classes:
        raise ConfigError(
            f"{folder.root} holds images of {len(folder.classes)} classes, "
            f"but the run is configured for {spec.classes}",
            "data.classes",
        )
    return folder


def check_folder(data: DataConfig) -> None:
    """Check that every image file of both splits can be read; files are read once, then remembered.

    Raises:
        ConfigError: naming the first that cannot be read; as `image_folder`.
    """
    check_images(image_folder(data), data.spec.size)


def class_names(data: DataConfig) -> tuple[str, ...] | None:
    """The classes' names by label, where the data has them.

    Raises:
        ConfigError: when the data is missing or damaged.
    """
    if is_latents(data):
        return latent_store(data).manifest.class_names
    return image_folder(data).class_names if DATASETS.find(data.name).kind == "folder" else None


def images_by_class(data: DataConfig) -> tuple[int, ...]:
    """The number of images of each class in the train split.

    Raises:
        ConfigError: when the data is missing or damaged.
    """
    if is_latents(data):
        labels = latent_store(data).labels
    elif DATASETS.find(data.name).kind == "folder":
        labels = image_folder(data).split("train").labels
    else:
        labels = load(data, "train").labels
    return tuple(np.bincount(labels, minlength=data.spec.classes).tolist())


def place(data: DataConfig) -> Path:
    """The folder or file of a data set that no package contains."""
    if data.path:
        return expanded(data.path)
    if root := os.environ.get("MPDIT_DATA"):
        return Path(root, data.name)
    what = "a folder of images"
    if is_latents(data):
        what = f"a latent store (made by: {typed('data', 'encode', 'IMAGES', 'STORE')})"
    raise ConfigError(
        f"{data.name}: set it to {what}, or MPDIT_DATA to the folder that holds {data.name}/",
        "data.path",
    )


def load_digits(_data: DataConfig, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits, 8×8, 17 grey levels; every sixth is for testing.

    They are read from its file: importing scikit-learn takes a second or two in each run.
    """
    package = find_spec("sklearn")
    assert package is not None  # mpdit depends on it
    assert package.origin is not None
    rows = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    pixels, labels = rows[:, :-1], rows[:, -1]
    chosen = (np.arange(len(labels)) % 6 == 5) == (split == "test")
    scaled = (pixels.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    return scaled[chosen], labels[chosen].astype(np.int64)


def load_fashion(data: DataConfig, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST, 28×28, 60,000 and 10,000 images, from its IDX files."""
    images, labels = _read_fashion(data, split)
    return (images[:, None] / 127.5 - 1).astype(np.float32), labels


def check_fashion(data: DataConfig) -> None:
    """Check that its four files exist and are whole.

    Raises:
        ConfigError: naming the first that is not.
    """
    for split in FASHION_FILES:
        _read_fashion(data, split)


def _read_fashion(data: DataConfig, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (_fashion_file(data, name) for name in FASHION_FILES[split])
    return idx.read_split(images, labels, data.spec.size, data.spec.classes)


def _fashion_file(data: DataConfig, name: str) -> Path:
    root = os.environ.get("MPDIT_DATA")
    default = Path(root) / data.name if root else FASHION_DEFAULT
    folder = expanded(data.path) if data.path else default
    for file in (folder / name, folder / f"{name}.gz"):
        if file.exists():
            return file
    raise ConfigError(
        f"fashion-mnist: no {name}[.gz] in {folder}. Install Debian's package "
        "dataset-fashion-mnist, or set data.path to the folder of its four IDX files "
        "(or MPDIT_DATA to the folder that holds fashion-mnist/)",
        "data.path",
    )
