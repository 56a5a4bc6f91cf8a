"""A solver: DDIM with half of DDPM's noise, η = 1/2 (Song et al., 2021)."""

import torch

from mpdit.catalogue import solver
from mpdit.diffusion.solvers import Solver


@solver("ddim-half", does="DDIM with η = 1/2", source="arXiv:2010.02502, eq. 12 and 16")
class HalfStochastic(Solver):
    def step(self, output, x, i, noise):
        index = torch.full((len(x),), i, device=x.device)
        x0 = self.chain.pred_xstart(output, x, index)
        bar, before = self.chain.alphas_bar[i], self.chain.alphas_bar_before[i]
        sigma = 0.5 * ((1 - before) / (1 - bar) * (1 - bar / before)).sqrt()
        eps = output.chunk(2, dim=1)[0]
        return before.sqrt() * x0 + (1 - before - sigma**2).sqrt() * eps + sigma * noise()
