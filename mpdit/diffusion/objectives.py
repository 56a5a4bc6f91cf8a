"""Prediction targets of a model: noise levels, training loss, and the output for the solvers.

Every objective uses the same model with 2C outputs. An objective without learned variance leaves
the last C unused, as SiT does, so that all have the same parameters.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from mpdit.catalogue import DATASETS, OBJECTIVES
from mpdit.catalogue.respacing import TIMESTEPS
from mpdit.config import RunConfig
from mpdit.diffusion.continuous import Continuous
from mpdit.diffusion.process import Diffusion, Images, Indices, Outputs, PerSample, at, image_mean
from mpdit.diffusion.target import Target


class Objective(Target):
    """A prediction target on DiT's 1000 timesteps, with learned-range variance.

    Args:
        diffusion: the whole process of 1000 timesteps, on the device of the images.
    """

    def __init__(self, diffusion: Diffusion) -> None:
        self.diffusion = diffusion

    @abstractmethod
    def epsilon(self, output: Outputs, x_t: Images, t: Indices) -> Outputs:
        """The output in which the noise ε replaces the prediction that implies it.

        Args:
            t: original timesteps, 0 … 999.
        """

    def times(self, count: int, random: torch.Generator, device: torch.device) -> Indices:
        return torch.randint(0, TIMESTEPS, (count,), generator=random, device=device)

    def spread(self, count: int) -> Indices:
        return torch.linspace(0, TIMESTEPS - 1, count).long()

    def noised(self, x0: Images, t: Indices, noise: Images) -> Images:
        return self.diffusion.q_sample(x0, t, noise)

    def prediction(self, output: Outputs, x_t: Images, t: Indices) -> Outputs:
        return self.epsilon(output, x_t, t)

    def noise_level(self, t: Indices) -> PerSample:
        return self.diffusion.noise[t] / self.diffusion.signal[t]

    def variational(
        self, output: Outputs, x0: Images, x_t: Images, t: Indices, noise: Images
    ) -> PerSample:
        """The variational bound's term in bits per dimension, from which only the variance learns
        (IDDPM section 3.1)."""
        return self.diffusion.loss(self.epsilon(output, x_t, t), x0, x_t, t, noise)["vlb"]

    def at(self, t: Indices) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ) of each image, (batch, 1, 1, 1)."""
        return at(self.diffusion.signal, t), at(self.diffusion.noise, t)


class Epsilon(Objective):
    """ε itself (DDPM eq. 14)."""

    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Indices, noise: Images
    ) -> dict[str, PerSample]:
        return self.diffusion.loss(output, x0, x_t, t, noise)

    def epsilon(self, output: Outputs, x_t: Images, t: Indices) -> Outputs:
        del x_t, t
        return output


class V(Objective):
    """v = √ᾱ ε − √(1 − ᾱ) x₀ (Salimans & Ho, arXiv:2202.00512, appendix D), unweighted: on x₀ this
    is their weight "SNR + 1"."""

    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Indices, noise: Images
    ) -> dict[str, PerSample]:
        signal, sigma = self.at(t)
        mse = image_mean((output.chunk(2, dim=1)[0] - (signal * noise - sigma * x0)).square())
        vlb = self.variational(output, x0, x_t, t, noise)
        return {"loss": mse + vlb, "mse": mse, "vlb": vlb}

    def epsilon(self, output: Outputs, x_t: Images, t: Indices) -> Outputs:
        """ε = √(1 − ᾱ) x_t + √ᾱ v."""
        v, variance = output.chunk(2, dim=1)
        signal, sigma = self.at(t)
        return torch.cat((sigma * x_t + signal * v, variance), dim=1)


class X(Objective):
    """x₀, with the weight max(SNR, 1), SNR = ᾱ / (1 − ᾱ): the larger of the squared errors of x₀
    and of ε (Salimans & Ho, section 4, "truncated SNR"). ``mse`` is that of x₀."""

    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Indices, noise: Images
    ) -> dict[str, PerSample]:
        mse = image_mean((output.chunk(2, dim=1)[0] - x0).square())
        weight = self.noise_level(t).pow(-2).clamp(min=1)
        vlb = self.variational(output, x0, x_t, t, noise)
        return {"loss": weight * mse + vlb, "mse": mse, "vlb": vlb}

    def epsilon(self, output: Outputs, x_t: Images, t: Indices) -> Outputs:
        """ε = (x_t − √ᾱ x₀) / √(1 − ᾱ)."""
        x0, variance = output.chunk(2, dim=1)
        signal, sigma = self.at(t)
        return torch.cat(((x_t - signal * x0) / sigma, variance), dim=1)


def objective_of(config: RunConfig, diffusion: Diffusion) -> Target:
    """A run's objective. Latents have unit standard deviation; 0.5 is EDM's for pixels in [-1, 1].

    Args:
        diffusion: the whole process, on the device of the images.
    """
    row = OBJECTIVES.find(config.train.objective)
    if not row.continuous:
        discrete: Objective = row.load()(diffusion)
        return discrete
    std = 1.0 if DATASETS[config.data.name].kind == "latents" else 0.5
    continuous: Continuous = row.load()(std)
    return continuous
