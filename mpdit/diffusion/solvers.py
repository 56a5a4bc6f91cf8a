"""From noise to samples: the solvers of the reverse process.

A `Solver` is a `Diffusion` chain through some of the 1000 timesteps, and a step along it. The model
always sees the integer timesteps that it was trained on. `Heun` is for objectives of continuous
time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch

from mpdit.diffusion.continuous import Continuous
from mpdit.diffusion.process import Diffusion, Images, Indices, Outputs, PerSample, Spacing


class Solver(ABC):
    """One batch's way from noise to samples.

    Args:
        diffusion: the whole process, on the device of the images.
        steps: the number of its timesteps that are visited.

    Attributes:
        chain: the steps, which run from the last to step 0.
    """

    spacing: ClassVar[Spacing] = "ddpm"

    def __init__(self, diffusion: Diffusion, steps: int) -> None:
        # DiT's single timestep is 0, where the model expects an image almost without noise
        self.chain = diffusion.respace(steps, self.spacing if steps > 1 else "log_snr")

    @abstractmethod
    def step(self, output: Outputs, x: Images, i: int, noise: Callable[[], Images]) -> Images:
        """x_i → x_{i−1}; after step 0 it is the sample.

        Args:
            output: the model's output at x_i: ε, then the variance's interpolation.
            noise: draws standard normal noise of x's shape.
        """

    def solve(
        self,
        model: Callable[[Images, Indices], Outputs],
        x: Images,
        noise: Callable[[], Images],
        on_step: Callable[[], None] = lambda: None,
    ) -> Images:
        """Turn noise ``x`` into samples; ``model`` gets images and original timesteps."""
        for i in reversed(range(self.chain.steps)):
            t = self.chain.timestep_map[i].expand(len(x))
            x = self.step(model(x, t), x, i, noise)
            on_step()
        return x


class DDPM(Solver):
    """Ancestral steps with learned variance (DDPM algorithm 2, IDDPM section 4)."""

    def step(self, output: Outputs, x: Images, i: int, noise: Callable[[], Images]) -> Images:
        return self.chain.step(output, x, _indices(x, i), noise())


class DDIM(Solver):
    """Deterministic steps of first order (DDIM eq. 12 with σ = 0), spaced as DDPM's."""

    def step(self, output: Outputs, x: Images, i: int, noise: Callable[[], Images]) -> Images:
        del noise
        return self.chain.ddim_step(output, x, _indices(x, i))


class DPMSolver2M(Solver):
    """DPM-Solver++(2M), algorithm 2 of Lu et al. (arXiv:2211.01095): deterministic, second order.

    The timesteps are spaced evenly in λ = log(α/σ), rounded to integers; their own α and σ are
    used, without interpolation. The first step, and the step onto x_0 (where λ = ∞), are of first
    order, which is DDIM.
    """

    spacing = "log_snr"

    def __init__(self, diffusion: Diffusion, steps: int) -> None:
        super().__init__(diffusion, steps)
        chain = self.chain
        self.alpha, self.sigma = chain.signal.double().tolist(), chain.noise.double().tolist()
        self.log_snr = (chain.signal.double() / chain.noise.double()).log().tolist()
        self.x0_before: Images | None = None

    def step(self, output: Outputs, x: Images, i: int, noise: Callable[[], Images]) -> Images:
        del noise
        x0 = self.chain.pred_xstart(output, x, _indices(x, i))
        before, self.x0_before = self.x0_before, x0
        if i == 0:
            return x0
        h = self.log_snr[i - 1] - self.log_snr[i]
        if before is not None:
            r = (self.log_snr[i] - self.log_snr[i + 1]) / h
            x0 = x0 + (x0 - before) / (2 * r)  # D of algorithm 2
        ratio = self.sigma[i - 1] / self.sigma[i]
        # α(1 − e^−h) = α − α_i σ/σ_i: without the cancellation of e^−h − 1
        stepped: Images = ratio * x + (self.alpha[i - 1] - self.alpha[i] * ratio) * x0
        return stepped


class Heun:
    """Heun's method, of second order, on dx/dt (EDM, arXiv:2206.00364, algorithm 1).

    It evaluates the model twice a step, and once in the last step, which is Euler's.

    Args:
        objective: the objective, which defines the times of the steps.
    """

    def __init__(self, objective: Continuous, steps: int) -> None:
        self.objective = objective
        self.schedule = objective.schedule(steps)

    def solve(
        self,
        model: Callable[[Images, PerSample], Images],
        x: Images,
        noise: Callable[[], Images],
        on_step: Callable[[], None] = lambda: None,
    ) -> Images:
        """Turn noise ``x`` into samples; ``model`` gets images and times, and returns dx/dt."""
        del noise
        x = self.objective.start(x)
        for now, after in pairwise(self.schedule):
            slope = model(x, x.new_full((len(x),), now))
            ahead = x + (after - now) * slope
            if after > 0:
                slope = (slope + model(ahead, x.new_full((len(x),), after))) / 2
                ahead = x + (after - now) * slope
            x = ahead
            on_step()
        return self.objective.finish(x)


def _indices(x: Images, i: int) -> Indices:
    return torch.full((len(x),), i, device=x.device)
