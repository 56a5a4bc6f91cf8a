"""The sources of latent stores: images, and the VAE that encodes them."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int64, UInt8
from torch import Tensor, nn

from mpdit.data.images import ImageFolder, to_array
from mpdit.data.latents import LatentSource, StorePlan, checksum
from mpdit.disk.stamp import stamps
from mpdit.encoding.build import shard_images
from mpdit.encoding.shards import Encoder
from mpdit.errors import ConfigError

INSTALL = "pip install 'mpdit[latents]'"


class Pictures(ABC):
    """RGB images with labels."""

    title: str
    hash: str
    labels: Int64[np.ndarray, " images"]
    classes: int
    class_names: tuple[str, ...] | None = None
    """The classes' names by label."""

    @abstractmethod
    def pixels(self, index: int, size: int) -> UInt8[np.ndarray, "3 size size"]:
        """One image, cropped; several threads call this at once."""

    def content(self, start: int, stop: int) -> str:
        """A hash of images ``start`` to ``stop``; their files may be read."""
        return f"{self.hash} {start} {stop}"

    def stamp(self, start: int, stop: int) -> str | None:
        """A text that changes when `content` may change, without reading; None: not reliable."""
        return self.content(start, stop)


class FolderPictures(Pictures):
    """Image files, a sub-folder per class."""

    title = "folder"

    def __init__(self, folder: ImageFolder) -> None:
        self.folder = folder
        self.hash, self.labels = folder.hash, folder.labels
        self.classes = len(folder.classes)
        self.class_names = folder.class_names

    def pixels(self, index: int, size: int) -> UInt8[np.ndarray, "3 size size"]:
        return self.folder.pixels(index, size, channels=3)

    def content(self, start: int, stop: int) -> str:
        """A hash of the files' bytes."""
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as readers:
            digests = readers.map(checksum, self._files(start, stop))
        return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]

    def stamp(self, start: int, stop: int) -> str | None:
        return stamps(self._files(start, stop))

    def _files(self, start: int, stop: int) -> list[Path]:
        return [self.folder.root / name for name in self.folder.names[start:stop]]


class HuggingFacePictures(Pictures):
    """A split of a Hugging Face data set with a column of images and one of labels."""

    def __init__(self, name: str, split: str) -> None:
        """Load the split, after a download if needed.

        Raises:
            ConfigError: when the library, the data set, a column, an image or a label is missing.
        """
        datasets = _extra("datasets")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            self.data = datasets.load_dataset(name, split=split)
        except Exception as error:  # of half a dozen libraries
            raise ConfigError(
                f"cannot load the Hugging Face data set {name}, split {split}: {first_line(error)}"
            ) from None
        self.title, self.hash = f"hf:{name}:{split}", self.data._fingerprint
        features = self.data.features
        images = [key for key, value in features.items() if isinstance(value, datasets.Image)]
        label = _label_column(features, datasets.ClassLabel)
        for kind, found in (("images (Image)", images), ("labels (ClassLabel or integer)", label)):
            if not found:
                raise ConfigError(
                    f"the Hugging Face data set {name} has no column of {kind}, or several integer "
                    f"columns of which none is called label (its columns: {', '.join(features)})"
                )
        self.column = images[0]
        for column in (self.column, str(label)):
            missing = np.flatnonzero(self.data.data.column(column).is_null().to_numpy())
            if len(missing):
                raise ConfigError(
                    f"{self.title}: {len(missing)} of {len(self.data)} rows have no {column}, "
                    f"row {missing[0]} is the first"
                )
        self.labels = np.asarray(self.data[label], np.int64)
        known = getattr(features[label], "num_classes", None)
        self.classes = int(self.labels.max(initial=-1)) + 1 if known is None else known
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= self.classes))
        if len(wrong) or not len(self.labels):
            which = f"row {wrong[0]} has label {self.labels[wrong[0]]}" if len(wrong) else "no rows"
            raise ConfigError(
                f"{self.title}: {which}; labels go from 0 to {self.classes - 1} (a split without "
                "labels has -1)"
            )
        names = getattr(features[label], "names", None)
        self.class_names = tuple(names) if names else None

    def pixels(self, index: int, size: int) -> UInt8[np.ndarray, "3 size size"]:
        try:
            return to_array(self.data[index][self.column], size, channels=3)
        except Exception as error:  # Pillow raises errors of any kind on damaged files
            raise ConfigError(f"image {index} of {self.title} cannot be read: {error}") from None


def _label_column(features: Mapping[str, Any], class_label: type) -> str | None:
    """The column of class labels, else of integers called label, else the only one of integers."""
    integers = [
        key
        for key, value in features.items()
        if getattr(value, "dtype", "").startswith(("int", "uint"))
        and not isinstance(value, class_label)
    ]
    labels = [key for key, value in features.items() if isinstance(value, class_label)]
    named = [key for key in integers if key in ("label", "labels")]
    candidates = labels or named or (integers if len(integers) == 1 else [])
    return candidates[0] if candidates else None


def open_pictures(source: str) -> Pictures:
    """Open a folder, or ``hf:NAME[:SPLIT]``.

    Raises:
        ConfigError: when it cannot be read.
    """
    if source.startswith("hf:"):
        name, _, split = source.removeprefix("hf:").partition(":")
        return HuggingFacePictures(name, split or "train")
    return FolderPictures(ImageFolder.scan(Path(source)))


class VaeEncoder(Encoder):
    """Encodes images by a VAE of diffusers, each as it is and mirrored."""

    def __init__(
        self, pictures: Pictures, vae_name: str, size: int, batch_size: int, device: torch.device
    ) -> None:
        """Load the VAE.

        Args:
            size: the side that images are cropped to (pixels).

        Raises:
            ConfigError: when diffusers or the weights are missing, or the size does not fit them.
        """
        self.pictures, self.labels, self.size = pictures, pictures.labels, size
        self.class_names = pictures.class_names
        self.batch_size, self.device = batch_size, device
        self.vae = load_vae(vae_name).to(device)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if size % factor:
            raise ConfigError(f"--size {size} is not a multiple of {factor}, as {vae_name} needs")
        images = len(self.labels)
        self.plan = StorePlan(
            images=images,
            classes=pictures.classes,
            channels=self.vae.config.latent_channels,
            size=size // factor,
            flips=2,
            shard_images=shard_images(images),
            source=LatentSource(
                data=pictures.title,
                hash=pictures.hash,
                pixels=size,
                vae=vae_name,
                vae_hash=weights_hash(self.vae),
            ),
        )

    def moments(
        self, start: int, stop: int, advance: Callable[[int], None]
    ) -> Float16[np.ndarray, "images flips 2 channels size size"]:
        """The moments of the images; threads read the next batch while one is encoded."""
        moments = np.empty((stop - start, self.plan.flips, *self.plan.row_shape), np.float16)
        batches = [
            range(first, min(first + self.batch_size, stop))
            for first in range(start, stop, self.batch_size)
        ]
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as readers:

            def read(indices: range) -> Any:
                return readers.map(lambda index: self.pictures.pixels(index, self.size), indices)

            coming = read(batches[0])
            for number, indices in enumerate(batches):
                pixels = torch.from_numpy(np.stack(list(coming)))
                if number + 1 < len(batches):
                    coming = read(batches[number + 1])
                into = slice(indices.start - start, indices.stop - start)
                moments[into] = self._encode(pixels.to(self.device)).numpy()
                advance(len(indices))
        return moments

    def content(self, start: int, stop: int) -> str:
        return self.pictures.content(start, stop)

    def stamp(self, start: int, stop: int) -> str | None:
        return self.pictures.stamp(start, stop)

    @torch.inference_mode()
    def _encode(
        self, pixels: UInt8[Tensor, "batch 3 height width"]
    ) -> Float16[Tensor, "batch flips 2 channels size size"]:
        images = pixels.float() / 127.5 - 1
        orientations = []
        for oriented in (images, images.flip(-1)):
            posterior = self.vae.encode(oriented).latent_dist
            orientations.append(torch.stack([posterior.mean, posterior.std], dim=1))
        return torch.stack(orientations, dim=1).half().cpu()


def load_vae(
    name: str, otherwise: str = "give --vae a folder that save_pretrained has written"
) -> Any:
    """Load an AutoencoderKL of diffusers from the hub or a folder, frozen, in float32.

    Args:
        otherwise: the remedy where the hub is out of reach, for the message.

    Raises:
        ConfigError: when diffusers or the weights are not available.
    """
    kind = _extra("diffusers").AutoencoderKL
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # hide its retries
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers calls the hub in ways that are deprecated
            vae = kind.from_pretrained(name, low_cpu_mem_usage=False)
    except Exception as error:  # of half a dozen libraries
        raise ConfigError(
            f"cannot load the VAE {name}: {first_line(error)}. "
            f"Where the hub is out of reach, {otherwise}"
        ) from None
    return vae.eval().requires_grad_(False)


def weights_hash(vae: nn.Module) -> str:
    """Sixteen hex digits of the SHA-256 of names and values."""
    digest = hashlib.sha256()
    for name, weight in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _extra(library: str) -> Any:
    """Import an optional library."""
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError:
        raise ConfigError(f"this needs the library {library}: {INSTALL}") from None


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
