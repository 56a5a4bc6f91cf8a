"""Objectives of continuous time, on the probability flow dx/dt that their solvers integrate."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from mpdit.diffusion.process import Images, Outputs, PerSample, image_mean
from mpdit.diffusion.target import Target, Times


class Continuous(Target):
    """A prediction target without timesteps and without learned variance.

    Args:
        data_std: the standard deviation of the data.
    """

    def __init__(self, data_std: float) -> None:
        self.data_std = data_std

    @abstractmethod
    def schedule(self, steps: int) -> list[float]:
        """The ``steps`` + 1 times of a solver, from pure noise to the data at 0."""

    def start(self, noise: Images) -> Images:
        """x at the first time of the schedule, from standard normal noise."""
        return noise

    def finish(self, x: Images) -> Images:
        """The images, from x at time 0."""
        return x


class Flow(Continuous):
    """The velocity ε − x₀ of the path x_t = (1 − t) x₀ + t ε, t uniform in [0, 1] (rectified flow,
    arXiv:2209.03003 eq. 1; SiT, arXiv:2401.08740, the linear path), unweighted."""

    def times(self, count: int, random: torch.Generator, device: torch.device) -> Times:
        return torch.rand(count, generator=random, device=device)

    def spread(self, count: int) -> Times:
        return _quantiles(count)

    def noised(self, x0: Images, t: Times, noise: Images) -> Images:
        share = _per_image(t)
        return (1 - share) * x0 + share * noise

    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Times, noise: Images
    ) -> dict[str, PerSample]:
        del x_t, t
        return _squared_error(output, noise - x0)

    def prediction(self, output: Outputs, x_t: Images, t: Times) -> Images:
        del x_t, t
        return output.chunk(2, dim=1)[0]

    def noise_level(self, t: Times) -> PerSample:
        return t / (1 - t)

    def schedule(self, steps: int) -> list[float]:
        return [1 - i / steps for i in range(steps + 1)]


class EDM(Continuous):
    """EDM's denoiser D = c_skip x + c_out F(c_in x, c_noise), with the model as F and EDM2's
    log-normal noise levels (EDM, arXiv:2206.00364, table 1 and eq. 7; EDM2, arXiv:2312.02696).

    The time is the noise level σ of x = x₀ + σ ε; data are scaled to EDM's standard deviation 0.5.
    The weight of EDM's loss, 1 / c_out², makes it F's squared error. EDM2 divides that by its
    expectation at each σ: the flag ``learned_uncertainty``.
    """

    log_mean, log_std = -0.4, 1.0  # of σ in training (EDM2's P_mean, P_std)
    std = 0.5  # of the data
    smallest, largest, rho = 0.002, 80.0, 7  # of σ in sampling

    def times(self, count: int, random: torch.Generator, device: torch.device) -> Times:
        normal = torch.randn(count, generator=random, device=device)
        return (self.log_mean + self.log_std * normal).exp()

    def spread(self, count: int) -> Times:
        normal: Tensor = torch.special.ndtri(_quantiles(count))
        return (self.log_mean + self.log_std * normal).exp()

    def noised(self, x0: Images, t: Times, noise: Images) -> Images:
        return x0 * (self.std / self.data_std) + _per_image(t) * noise

    def inputs(self, x_t: Images, t: Times) -> tuple[Images, Times]:
        return x_t / self._total(t), t.log() / 4

    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Times, noise: Images
    ) -> dict[str, PerSample]:
        del x_t
        # (x₀ − c_skip x) / c_out, without the cancellation of nearly equal numbers at small σ
        sigma, x0 = _per_image(t), x0 * (self.std / self.data_std)
        target = (sigma / self.std * x0 - self.std * noise) / self._total(t)
        return _squared_error(output, target)

    def prediction(self, output: Outputs, x_t: Images, t: Times) -> Images:
        """dx/dσ = (x − D) / σ, EDM algorithm 1."""
        sigma, total = _per_image(t), self._total(t)
        # x − c_skip x = σ² / (σ² + std²) x
        return sigma / total.square() * x_t - self.std / total * output.chunk(2, dim=1)[0]

    def noise_level(self, t: Times) -> PerSample:
        return t * (self.data_std / self.std)

    def schedule(self, steps: int) -> list[float]:
        """EDM eq. 5, then 0."""
        first, last = (level ** (1 / self.rho) for level in (self.largest, self.smallest))
        gaps = max(1, steps - 1)
        return [(first + i / gaps * (last - first)) ** self.rho for i in range(steps)] + [0.0]

    def start(self, noise: Images) -> Images:
        return noise * self.largest

    def finish(self, x: Images) -> Images:
        return x * (self.data_std / self.std)

    def _total(self, t: Times) -> Tensor:
        """√(σ² + std²), (batch, 1, 1, 1)."""
        return (_per_image(t).square() + self.std**2).sqrt()


def _squared_error(output: Outputs, target: Images) -> dict[str, PerSample]:
    mse = image_mean((output.chunk(2, dim=1)[0] - target).square())
    return {"loss": mse, "mse": mse, "vlb": torch.zeros_like(mse)}


def _quantiles(count: int) -> Times:
    return (torch.arange(count) + 0.5) / count


def _per_image(t: Times) -> Tensor:
    return t.view(-1, 1, 1, 1)
