"""The interface of objectives for the trainer and the solvers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Real
from torch import Tensor

from mpdit.diffusion.process import Images, Outputs, PerSample

Times = Real[Tensor, " batch"]
"""The noise level of each image: integer timesteps, or real numbers."""


class Target(ABC):
    """One prediction target on its noising process."""

    @abstractmethod
    def times(self, count: int, random: torch.Generator, device: torch.device) -> Times:
        """Draw the times of a training batch from the distribution of the objective's paper."""

    @abstractmethod
    def spread(self, count: int) -> Times:
        """Times from little noise to much noise: evenly spaced quantiles of the distribution."""

    @abstractmethod
    def noised(self, x0: Images, t: Times, noise: Images) -> Images:
        """x_t."""

    def inputs(self, x_t: Images, t: Times) -> tuple[Images, Times]:
        """The model's inputs for x_t and t."""
        return x_t, t

    @abstractmethod
    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Times, noise: Images
    ) -> dict[str, PerSample]:
        """``loss`` of each sample, and its parts ``mse`` and ``vlb``.

        Args:
            output: the model's output at `inputs`: prediction, then the variance's interpolation.
        """

    @abstractmethod
    def prediction(self, output: Outputs, x_t: Images, t: Times) -> Tensor:
        """The output in the solvers' form: ε and the variance on timesteps, else dx/dt.

        (batch, 2 · channels, height, width), or as x_t.
        """

    @abstractmethod
    def noise_level(self, t: Times) -> PerSample:
        """The noise's standard deviation σ over the signal's factor."""
