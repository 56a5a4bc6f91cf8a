"""An objective: ε, each timestep weighted by min(SNR, 5) / SNR, SNR = ᾱ / (1 − ᾱ)."""

from mpdit.catalogue import objective
from mpdit.diffusion.objectives import Epsilon


@objective("min-snr", does="ε, weighted by min(SNR, 5) / SNR", source="arXiv:2303.09556, eq. 8")
class MinSNR(Epsilon):
    def loss(self, output, x0, x_t, t, noise):
        terms = super().loss(output, x0, x_t, t, noise)
        weight = (5 * self.noise_level(t).square()).clamp(max=1)
        return {**terms, "loss": weight * terms["mse"] + terms["vlb"]}
