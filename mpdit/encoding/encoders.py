"""What latent stores are made from: images through a VAE, or latents of the official code."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int64, UInt8
from torch import Tensor, nn

from mpdit.data.images import ImageFolder, to_array
from mpdit.data.latents import LatentSource, StorePlan
from mpdit.encoding.build import Encoder, shard_images
from mpdit.errors import ConfigError

OFFICIAL = ("posterior_means.pt", "posterior_stds.pt", "labels.pt", "stats.pt")
INSTALL = "pip install 'mpdit[latents]'"


class Pictures(ABC):
    """RGB images with labels."""

    title: str
    hash: str
    labels: Int64[np.ndarray, " images"]
    classes: int

    @abstractmethod
    def pixels(self, index: int, size: int) -> UInt8[np.ndarray, "3 size size"]:
        """One of them, cropped; several threads ask at once."""


class FolderPictures(Pictures):
    """Image files, a sub-folder per class."""

    title = "folder"

    def __init__(self, root: Path) -> None:
        self.folder = ImageFolder.scan(root)
        self.hash, self.labels = self.folder.hash, self.folder.labels
        self.classes = len(self.folder.classes)

    def pixels(self, index: int, size: int) -> UInt8[np.ndarray, "3 size size"]:
        return self.folder.pixels(index, size, channels=3)


class HuggingFacePictures(Pictures):
    """A split of a Hugging Face data set with a column of images and one of class labels."""

    def __init__(self, name: str, split: str) -> None:
        """Load it, or download it first.

        Raises:
            ConfigError: when the library, the data set or one of the columns is not there.
        """
        datasets = _extra("datasets")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            self.data = datasets.load_dataset(name, split=split)
        except Exception as error:  # of half a dozen libraries
            raise ConfigError(
                f"cannot load the Hugging Face data set {name}, split {split}: {_line(error)}"
            ) from None
        features = self.data.features
        columns = {
            kind: [key for key, value in features.items() if isinstance(value, kind)]
            for kind in (datasets.Image, datasets.ClassLabel)
        }
        for kind, found in columns.items():
            if not found:
                raise ConfigError(
                    f"the Hugging Face data set {name} has no column of type {kind.__name__} "
                    f"(its columns: {', '.join(features)})"
                )
        self.column, label = (found[0] for found in columns.values())
        self.title, self.hash = f"hf:{name}:{split}", self.data._fingerprint
        self.labels = np.asarray(self.data[label], np.int64)
        self.classes = features[label].num_classes

    def pixels(self, index: int, size: int) -> UInt8[np.ndarray, "3 size size"]:
        try:
            return to_array(self.data[index][self.column], size, channels=3)
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"image {index} of {self.title} cannot be read: {error}") from None


def open_pictures(source: str) -> Pictures:
    """A folder, or ``hf:NAME[:SPLIT]``.

    Raises:
        ConfigError: when it cannot be read.
    """
    if source.startswith("hf:"):
        name, _, split = source.removeprefix("hf:").partition(":")
        return HuggingFacePictures(name, split or "train")
    return FolderPictures(Path(source))


class VaeEncoder(Encoder):
    """Images through a VAE of diffusers, each as it is and mirrored."""

    def __init__(
        self, pictures: Pictures, vae_name: str, size: int, batch_size: int, device: torch.device
    ) -> None:
        """Load the VAE.

        Args:
            size: the side that images are cropped to (pixels).

        Raises:
            ConfigError: when diffusers or the weights are not there, or the size does not fit them.
        """
        self.pictures, self.labels, self.size = pictures, pictures.labels, size
        self.batch_size, self.device = batch_size, device
        self.vae = load_vae(vae_name).to(device)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if size % factor:
            raise ConfigError(f"--size {size} is no multiple of {factor}, as {vae_name} needs")
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
        """The next batch is read by threads while this one is encoded."""
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


class OfficialLatents(Encoder):
    """The latents that the official code writes: posterior_means.pt and its companions.

    They have one orientation and their own statistics.
    """

    def __init__(self, folder: Path, vae_name: str) -> None:
        """Map the files.

        Raises:
            ConfigError: when one of them is missing, damaged, or of another shape than the others.
        """
        self.means, self.stds, labels = (_load_tensor(folder / name) for name in OFFICIAL[:3])
        stats = _load(folder / OFFICIAL[3])
        shape = self.means.shape
        if len(shape) != 4 or shape[2] != shape[3] or shape != self.stds.shape or not len(labels):
            shapes = f"{tuple(shape)} and {tuple(self.stds.shape)}"
            raise ConfigError(f"the latents in {folder} are {shapes}, not both N×C×H×H")
        images, channels, size, _ = shape
        self.labels = labels.long().flatten().numpy()
        if self.labels.min() < 0:
            raise ConfigError(f"{folder / OFFICIAL[2]} holds labels below 0")
        per_channel = [
            value.double().flatten().tolist()
            for key in ("mean", "std")
            if isinstance(stats, dict) and isinstance(value := stats.get(key), Tensor)
        ]
        if len(per_channel) != 2:
            raise ConfigError(
                f"{folder / OFFICIAL[3]} is no dict of the tensors mean and std, per channel"
            )
        lengths = [len(self.labels), *map(len, per_channel)]
        if lengths != [images, channels, channels]:
            raise ConfigError(
                f"{folder}: {lengths[0]} labels and statistics of {lengths[1]} channels "
                f"for {images} latents of {channels} channels"
            )
        self.statistics = tuple(per_channel[0]), tuple(per_channel[1])
        self.plan = StorePlan(
            images=images,
            classes=int(self.labels.max()) + 1,
            channels=channels,
            size=size,
            flips=1,
            shard_images=shard_images(images),
            source=LatentSource(
                data="official",
                hash=hashlib.sha256(self.labels.tobytes()).hexdigest()[:16],
                pixels=None,
                vae=vae_name,
                vae_hash=None,
            ),
        )

    def moments(
        self, start: int, stop: int, advance: Callable[[int], None]
    ) -> Float16[np.ndarray, "images flips 2 channels size size"]:
        parts = [tensor[start:stop].half() for tensor in (self.means, self.stds)]
        advance(stop - start)
        moments: np.ndarray = torch.stack(parts, dim=1)[:, None].numpy()
        return moments


def load_vae(
    name: str, otherwise: str = "give --vae a folder that save_pretrained has written"
) -> Any:
    """An AutoencoderKL of diffusers, from its hub or a folder, in float32, not to be trained.

    Args:
        otherwise: what the user can do where the hub is out of reach.

    Raises:
        ConfigError: when diffusers or the weights cannot be had.
    """
    kind = _extra("diffusers").AutoencoderKL
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are no news
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers calls the hub in ways that are deprecated
            vae = kind.from_pretrained(name, low_cpu_mem_usage=False)
    except Exception as error:  # of half a dozen libraries
        raise ConfigError(
            f"cannot load the VAE {name}: {_line(error)}. "
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


def _load(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise ConfigError(f"there is no {file} (needed: {', '.join(OFFICIAL)})") from None
    except Exception as error:  # what a damaged pickle or zip leads to
        raise ConfigError(f"{file} is damaged: {_line(error)}") from None


def _load_tensor(file: Path) -> Tensor:
    loaded = _load(file)
    if not isinstance(loaded, Tensor):
        raise ConfigError(f"{file} holds no tensor: {type(loaded).__name__}")
    return loaded


def _extra(library: str) -> Any:
    """An optional library."""
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError:
        raise ConfigError(f"this needs the library {library}: {INSTALL}") from None


def _line(error: Exception) -> str:
    """The first line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
