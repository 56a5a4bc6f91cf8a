"""What every extractor is: 8-bit images → features and class logits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn


class Features(NamedTuple):
    """What a network says of images."""

    pooled: Float32[np.ndarray, "images features"]
    """Where distances are taken."""
    logits: Float32[np.ndarray, "images classes"]


class FeatureNetwork(nn.Module):
    """8-bit images, channels first → pooled features and logits, a row an image."""

    def look(self, images: UInt8[Tensor, "batch channels height width"]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@dataclass(frozen=True)
class Extractor:
    """A network with the hash of its weights (16 hex digits) and what it does to 8-bit images."""

    name: str
    weights: str
    preprocessing: str
    network: FeatureNetwork
    device: torch.device
    batch_size: int

    @torch.no_grad()
    def features(
        self,
        images: UInt8[np.ndarray, "images height width channels"],
        on_batch: Callable[[int], None] = lambda _done: None,
    ) -> Features:
        """Features of 8-bit images: real and generated ones go through the same rounding.

        Args:
            on_batch: called with the number of images done.
        """
        batches = []
        for start in range(0, len(images), self.batch_size):
            batch = torch.from_numpy(images[start : start + self.batch_size]).to(self.device)
            found = self.network.look(batch.permute(0, 3, 1, 2))
            batches.append([part.float().cpu() for part in found])
            on_batch(start + len(batch))
        pooled, logits = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
        return Features(pooled, logits)


def file_hash(file: Path) -> str:
    """Sixteen hex digits of the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
