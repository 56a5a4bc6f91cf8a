"""The interface of extractors: 8-bit images → features and class logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from torch import Tensor, nn

from mpdit.errors import ConfigError, why_unloadable
from mpdit.runtime.devices import float32_products


class Features(NamedTuple):
    """A network's features and logits of images."""

    pooled: Float32[np.ndarray, "images features"]
    """The features in which distances are measured."""
    logits: Float32[np.ndarray, "images classes"]

    @classmethod
    def join(cls, parts: Iterable[Features]) -> Features:
        """Join the features of several parts."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class FeatureNetwork(nn.Module):
    """8-bit images, channels first → pooled features and logits, a row an image."""

    def look(self, images: UInt8[Tensor, "batch channels height width"]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@dataclass(frozen=True)
class Extractor:
    """A network with the hash of its weights (16 hex digits) and its preprocessing of images."""

    name: str
    weights: str
    preprocessing: str
    network: FeatureNetwork
    device: torch.device
    batch_size: int

    def look(
        self, batches: Iterable[UInt8[np.ndarray, "batch height width channels"]]
    ) -> Iterator[Features]:
        """Features of 8-bit images, batch by batch; the images of only one are in memory.

        Real and generated images have gone through the same rounding when they come here.
        """
        for batch in batches:
            images = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)
            with torch.no_grad(), float32_products():
                found = self.network.look(images)
            yield Features(*(part.float().cpu().numpy() for part in found))

    def features(self, images: UInt8[np.ndarray, "images height width channels"]) -> Features:
        """Features of images that are in memory."""
        return Features.join(self.look(in_batches(images, self.batch_size)))


@contextmanager
def reading_weights(file: Path, what: str) -> Iterator[None]:
    """Turn any error from a file with other content into one message."""
    try:
        yield
    except Exception as error:  # it may fail anywhere
        raise ConfigError(f"{file} does not hold {what}: {why_unloadable(error)}") from None


def in_batches(
    array: Shaped[np.ndarray, "rows ..."], size: int
) -> Iterator[Shaped[np.ndarray, "batch ..."]]:
    """The array's rows, ``size`` at a time."""
    for start in range(0, len(array), size):
        yield array[start : start + size]
