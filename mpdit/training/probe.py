"""The magnitude probe: what a model's activations, weights, gradients and steps measure.

Activations are those of a fixed batch at fixed timesteps, eagerly, outside the training step;
gradients and updates are the training step's own. Nothing here changes a bit of the training.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.diffusion.process import Diffusion
from mpdit.model import DiT, magnitude
from mpdit.runtime.randomness import generator
from mpdit.training.batches import Batches

IMAGES = 64

Magnitudes = dict[str, list[float]]
"""Site → one magnitude a block."""


class Probe:
    """Measures models on one batch: noisy images, their original timesteps, their labels."""

    def __init__(
        self,
        x_t: Float[Tensor, "batch channels height width"],
        t: Int64[Tensor, " batch"],
        y: Int64[Tensor, " batch"],
    ) -> None:
        self.x_t, self.t, self.y = x_t, t, y

    @classmethod
    def of_run(cls, config: RunConfig, batches: Batches, diffusion: Diffusion) -> Probe:
        """On images of the train split, noised to timesteps of the whole range."""
        random = generator(config.seed, "probe")
        rows = torch.randperm(len(batches), generator=random)[:IMAGES]
        x0, y = batches.images(rows)
        t = torch.linspace(0, 999, len(rows)).long().to(x0.device)
        noise = torch.randn(x0.shape, generator=random).to(x0.device)
        return cls(diffusion.q_sample(x0, t, noise), t, y)

    @torch.no_grad()
    def __call__(self, model: DiT) -> Magnitudes:
        """The activations (`mpdit.model.SITES`), and ``weight``: the RMS of a block's weights."""
        sites: Magnitudes = defaultdict(list)

        def record(_block: int, site: str, value: Tensor) -> None:
            sites[site].append(float(magnitude(value.float())))

        model(self.x_t, self.t, self.y, record=record)
        return {**sites, "weight": [rms(weights) for weights in weights_of_blocks(model)]}


class StepProbe:
    """What one training step does to the weights; made between the gradients and the step.

    It copies the blocks' weights, and is let go of after the step.
    """

    @torch.no_grad()
    def __init__(self, model: DiT) -> None:
        self.weights = weights_of_blocks(model)
        self.before = [[weight.clone() for weight in block] for block in self.weights]
        gradients = [[w.grad for w in block if w.grad is not None] for block in self.weights]
        self.gradients = [rms(block) for block in gradients]

    @torch.no_grad()
    def after(self) -> Magnitudes:
        """``gradient``: its RMS before clipping; ``update``: the change's RMS over the weights'."""
        updates = [
            rms(torch._foreach_sub(block, before)) / rms(before)
            for block, before in zip(self.weights, self.before, strict=True)
        ]
        return {"gradient": self.gradients, "update": updates}


def weights_of_blocks(model: DiT) -> list[list[Tensor]]:
    """The matrices of each block, its modulation's among them; gains are not."""
    return [[p for p in block.parameters() if p.ndim > 1] for block in model.blocks]


def rms(tensors: list[Tensor] | tuple[Tensor, ...]) -> float:
    """Root mean square over the numbers of all of them."""
    norms = torch.stack(torch._foreach_norm(tensors))
    return math.sqrt(norms.square().sum().item() / sum(tensor.numel() for tensor in tensors))
