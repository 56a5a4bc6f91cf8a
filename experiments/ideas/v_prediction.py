"""An objective: v = √ᾱ ε − √(1 − ᾱ) x₀, of unit magnitude at every timestep."""

import torch

from mpdit.catalogue import objective
from mpdit.diffusion.objectives import Objective


@objective("v", does="v, a mixture of noise and image", source="arXiv:2202.00512, appendix D")
class V(Objective):
    def loss(self, output, x0, x_t, t, noise):
        signal, sigma = self.at(t)
        target = signal * noise - sigma * x0
        terms = self.diffusion.loss(self.epsilon(output, x_t, t), x0, x_t, t, noise)
        mse = (output.chunk(2, dim=1)[0] - target).square().flatten(1).mean(1)
        return {"loss": mse + terms["vlb"], "mse": mse, "vlb": terms["vlb"]}

    def epsilon(self, output, x_t, t):
        """ε = √(1 − ᾱ) x_t + √ᾱ v."""
        v, variance = output.chunk(2, dim=1)
        signal, sigma = self.at(t)
        return torch.cat((sigma * x_t + signal * v, variance), dim=1)

    def at(self, t):
        """√ᾱ and √(1 − ᾱ) of each image, (batch, 1, 1, 1)."""
        diffusion = self.diffusion
        return diffusion.signal[t].view(-1, 1, 1, 1), diffusion.noise[t].view(-1, 1, 1, 1)
