"""The magnitude probe: the sizes of a model's activations, weights, gradients and updates.

Activations are measured on a fixed batch at fixed timesteps, eagerly, outside the training step;
gradients and updates in the training step itself. The probe does not change the training.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.diffusion.target import Target, Times
from mpdit.model import DiT, magnitude
from mpdit.runtime.randomness import generator
from mpdit.training.batches import Batches

IMAGES = 64

Magnitudes = dict[str, list[float]]
"""Site → one magnitude a block."""


class Probe:
    """Measures models on one batch of model inputs: noisy images x, times t, labels y."""

    def __init__(
        self,
        x: Float[Tensor, "batch channels height width"],
        t: Times,
        y: Int64[Tensor, " batch"],
    ) -> None:
        self.x, self.t, self.y = x, t, y

    @classmethod
    def of_run(cls, config: RunConfig, batches: Batches, objective: Target) -> Probe:
        """Build the probe from images of the train split at noise levels over the whole range."""
        random = generator(config.seed, "probe")
        rows = torch.randperm(len(batches), generator=random)[:IMAGES]
        x0, y = batches.images(rows)
        t = objective.spread(len(rows)).to(x0.device)
        noise = torch.randn(x0.shape, generator=random).to(x0.device)
        return cls(*objective.inputs(objective.noised(x0, t, noise), t), y)

    @torch.no_grad()
    def __call__(self, model: DiT) -> Magnitudes:
        """Measure the activations (`SITES`) and ``weight``, the RMS of a block's weights."""
        sites: Magnitudes = defaultdict(list)

        def record(_block: int, site: str, value: Tensor) -> None:
            sites[site].append(float(magnitude(value.float())))

        model(self.x, self.t, self.y, record=record)
        return {**sites, "weight": [rms(weights) for weights in weights_of_blocks(model)]}


class StepProbe:
    """Measures how one training step changes the weights; created between backward and step.

    Holds a copy of the block weights; discard it after the step.
    """

    @torch.no_grad()
    def __init__(self, model: DiT) -> None:
        self.weights = weights_of_blocks(model)
        copies = {weight: weight.clone() for block in self.weights for weight in block}
        self.before = [[copies[weight] for weight in block] for block in self.weights]
        gradients = [[w.grad for w in block if w.grad is not None] for block in self.weights]
        self.gradients = [rms(block) for block in gradients]

    @torch.no_grad()
    def after(self) -> Magnitudes:
        """Return ``gradient``, its RMS before clipping; ``update``: RMS of change over weights."""
        updates = [
            rms(torch._foreach_sub(block, before)) / rms(before)
            for block, before in zip(self.weights, self.before, strict=True)
        ]
        return {"gradient": self.gradients, "update": updates}


def weights_of_blocks(model: DiT) -> list[list[Tensor]]:
    """Return the matrices of each block, with those of its modulation and without gains.

    A modulation map that all blocks share is one of each block's.
    """
    shared: list[Tensor] = [] if model.modulation is None else [model.modulation.weight]
    return [[*(p for p in block.parameters() if p.ndim > 1), *shared] for block in model.blocks]


def rms(tensors: list[Tensor] | tuple[Tensor, ...]) -> float:
    """Return the root mean square over all numbers of the tensors."""
    norms = torch.stack(torch._foreach_norm(tensors))
    return math.sqrt(norms.square().sum().item() / sum(tensor.numel() for tensor in tensors))
