"""The magnitude probe: a fixed batch at fixed timesteps, eagerly, outside the training step."""

from __future__ import annotations

from collections import defaultdict

import torch
from jaxtyping import Float
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.data import Batches
from mpdit.diffusion import Diffusion
from mpdit.model import DiT
from mpdit.randomness import generator

IMAGES = 64


def magnitude(x: Float[Tensor, "*positions channels"]) -> float:
    """Mean over positions of the RMS over channels."""
    return float(x.float().square().mean(-1).sqrt().mean())


class Probe:
    """Measures a model on one batch of the train split, noised to timesteps of the whole range."""

    def __init__(self, config: RunConfig, batches: Batches, diffusion: Diffusion) -> None:
        random = generator(config.seed, "probe")
        rows = torch.randperm(len(batches.x), generator=random)[:IMAGES]
        x0 = batches.x[rows.to(batches.x.device)]  # (N, C, H, W)
        self.y = batches.y[rows.to(batches.x.device)]
        self.t = torch.linspace(0, 999, len(rows)).long().to(x0.device)
        noise = torch.randn(x0.shape, generator=random).to(x0.device)
        self.x_t = diffusion.q_sample(x0, self.t, noise)

    @torch.no_grad()
    def __call__(self, model: DiT) -> dict[str, list[float]]:
        """Site → magnitude in each block."""
        sites: dict[str, list[float]] = defaultdict(list)

        def record(_block: int, site: str, value: Tensor) -> None:
            sites[site].append(magnitude(value))

        model(self.x_t, self.t, self.y, record=record)
        return dict(sites)
