"""Training batches as a function of (seed, step)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.data import datasets
from mpdit.randomness import generator


class Batches:
    """The train split on the device; batch ``step`` (from 1) is the same whatever came before.

    Every epoch is a permutation of its own, and batches run on across its end, so each image is
    seen equally often.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        images = datasets.load(config.data, "train")
        self.x = torch.from_numpy(images.pixels).to(device)  # (N, C, H, W)
        self.y = torch.from_numpy(images.labels).to(device)  # (N,)
        self.size = config.train.batch_size
        self.seed = config.seed
        self._epoch = -1
        self._order = torch.empty(0)

    def batch(
        self, step: int, rows: slice = slice(None)
    ) -> tuple[Float[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]:
        """Images in [-1, 1] and labels of training step ``step``."""
        chosen = self._rows((step - 1) * self.size, self.size)[rows]
        return self.x[chosen], self.y[chosen]

    def _rows(self, start: int, count: int) -> Int64[Tensor, " rows"]:
        epoch, offset = divmod(start, len(self.x))
        if epoch != self._epoch:
            order = torch.randperm(len(self.x), generator=generator(self.seed, "epoch", epoch))
            self._order = order.to(self.x.device)
            self._epoch = epoch
        rows = self._order[offset : offset + count]
        if len(rows) < count:
            return torch.cat([rows, self._rows(start + len(rows), count - len(rows))])
        return rows
