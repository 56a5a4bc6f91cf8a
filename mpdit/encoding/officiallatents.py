"""The latents that the official code writes: posterior_means.pt and three more files, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int64
from torch import Tensor

from mpdit.data.latents import LatentSource, StorePlan
from mpdit.encoding.build import shard_images
from mpdit.encoding.shards import Encoder, Statistics
from mpdit.errors import ConfigError, why_unloadable
from mpdit.progress import Progress

OFFICIAL = ("posterior_means.pt", "posterior_stds.pt", "labels.pt", "stats.pt")
AT_ONCE = 4096
"""Images whose posteriors are checked together."""


class OfficialLatents(Encoder):
    """The four files, with one orientation of each image and their own statistics."""

    def __init__(self, folder: Path, vae_name: str) -> None:
        """Map the files and check all their contents.

        Raises:
            ConfigError: when a file is missing or damaged, holds an impossible posterior, label or
                statistic, or has another shape than the others.
        """
        means, stds, labels, stats = (folder / name for name in OFFICIAL)
        self.means, self.stds = _load_tensor(means), _load_tensor(stds)
        shape = self.means.shape
        if len(shape) != 4 or shape[2] != shape[3] or shape != self.stds.shape or not shape[0]:
            shapes = f"{tuple(shape)} and {tuple(self.stds.shape)}"
            raise ConfigError(f"the latents in {folder} are {shapes}, not both N×C×H×H")
        images, channels, size, _ = shape
        self.labels = _labels(labels, images)
        self.statistics = _statistics(stats, channels)
        self.content_hash = self._look(means, stds)
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
                content=self.content_hash,
            ),
        )

    def moments(
        self, start: int, stop: int, advance: Callable[[int], None]
    ) -> Float16[np.ndarray, "images flips 2 channels size size"]:
        parts = [tensor[start:stop].half() for tensor in (self.means, self.stds)]
        advance(stop - start)
        moments: np.ndarray = torch.stack(parts, dim=1)[:, None].numpy()
        return moments

    def content(self, start: int, stop: int) -> str:
        return f"{self.content_hash} {start} {stop}"

    def _look(self, means: Path, stds: Path) -> str:
        """The hash of all contents; this also checks the posteriors."""
        digest = hashlib.sha256(self.labels.tobytes())
        digest.update(repr(self.statistics).encode())
        images = len(self.means)
        with Progress("check", images) as progress:
            for start in range(0, images, AT_ONCE):
                mean, std = (t[start : start + AT_ONCE].float() for t in (self.means, self.stds))
                for file, values in ((means, mean), (stds, std)):
                    _refuse(file, start, ~values.isfinite(), "is not finite")
                    digest.update(values.numpy().tobytes())
                _refuse(stds, start, std < 0, "has negative values: log-variances, or damaged?")
                progress.advance(len(mean))
        return digest.hexdigest()[:16]


def _refuse(file: Path, start: int, wrong: Tensor, what: str) -> None:
    """Raise ConfigError for the first image with a wrong value; image 0 of them is ``start``."""
    if wrong.any():
        image = start + int(wrong.flatten(1).any(1).nonzero()[0])
        raise ConfigError(f"{file}: image {image} {what}")


def _labels(file: Path, images: int) -> Int64[np.ndarray, " images"]:
    given = _load_tensor(file)
    if given.numel() != images or given.ndim == 0:
        raise ConfigError(f"{file} holds {tuple(given.shape)} labels for {images} latents")
    labels = given.flatten().long()
    for wrong, what in (
        (given.flatten() != labels, "that are not integers"),
        (labels < 0, "below 0"),
    ):
        if wrong.any():
            image = int(wrong.nonzero()[0])
            value = given.flatten()[image].item()
            raise ConfigError(f"{file} holds labels {what} (image {image}: {value:g})")
    found: np.ndarray = labels.numpy()
    return found


def _statistics(file: Path, channels: int) -> Statistics:
    stats = _load(file)
    tensors = [
        value.detach().double().flatten()
        for key in ("mean", "std")
        if isinstance(stats, dict) and isinstance(value := stats.get(key), Tensor)
    ]
    if len(tensors) != 2:
        raise ConfigError(f"{file} is not a dict of the tensors mean and std, per channel")
    mean, std = tensors
    if not len(mean) == len(std) == channels:
        raise ConfigError(
            f"{file} holds {len(mean)} means and {len(std)} standard deviations "
            f"for latents of {channels} channels"
        )
    if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise ConfigError(
            f"{file}: means have to be finite and standard deviations above 0, "
            f"not {mean.tolist()} and {std.tolist()}"
        )
    return tuple(mean.tolist()), tuple(std.tolist())


def _load(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise ConfigError(f"there is no {file} (needed: {', '.join(OFFICIAL)})") from None
    except Exception as error:  # any error of a damaged pickle or zip
        raise ConfigError(f"{file} is damaged: {why_unloadable(error)}") from None


def _load_tensor(file: Path) -> Tensor:
    loaded = _load(file)
    if not isinstance(loaded, Tensor):
        raise ConfigError(f"{file} holds no tensor: {type(loaded).__name__}")
    if loaded.layout != torch.strided or loaded.is_complex() or loaded.is_quantized:
        raise ConfigError(f"{file} holds a tensor of {loaded.dtype}, {loaded.layout}")
    return loaded.detach()
