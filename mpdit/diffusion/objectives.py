"""What a model learns to predict: its training loss, and its output as the solvers take it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mpdit.diffusion.process import Diffusion, Images, Indices, Outputs, PerSample


class Objective(ABC):
    """One prediction target.

    Args:
        diffusion: the whole process of 1000 timesteps, on the device of the images.
    """

    def __init__(self, diffusion: Diffusion) -> None:
        self.diffusion = diffusion

    @abstractmethod
    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Indices, noise: Images
    ) -> dict[str, PerSample]:
        """``loss``, and of it ``mse`` and ``vlb``, of each sample.

        Args:
            output: the model's at x_t: its prediction, then the variance's interpolation.
        """

    @abstractmethod
    def epsilon(self, output: Outputs, x_t: Images, t: Indices) -> Outputs:
        """The output with the noise ε that the prediction implies in its place.

        Args:
            t: original timesteps, 0 … 999.
        """


class Epsilon(Objective):
    """ε itself, with learned-range variance (DDPM eq. 14, IDDPM section 3.1)."""

    def loss(
        self, output: Outputs, x0: Images, x_t: Images, t: Indices, noise: Images
    ) -> dict[str, PerSample]:
        return self.diffusion.loss(output, x0, x_t, t, noise)

    def epsilon(self, output: Outputs, x_t: Images, t: Indices) -> Outputs:
        del x_t, t
        return output
