"""The diffusion process of IDDPM as DiT uses it (Nichol & Dhariwal, arXiv:2102.09672).

ε-prediction, 1000 linear steps, learned-range variance. The equations are the paper's; DDPM is
Ho et al., arXiv:2006.11239.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mpdit.catalogue.respacing import TIMESTEPS, Respacing, even_timesteps

Images = Float[Tensor, "batch channels height width"]
Outputs = Float[Tensor, "batch outputs height width"]
Indices = Int[Tensor, " batch"]
PerSample = Float[Tensor, " batch"]
Spacing = Literal["ddpm", "log_snr"]

TINY = 1e-12


class Prediction(NamedTuple):
    """The model's p(x_{i−1} | x_i): mean, log σ², and the x_0 that it implies."""

    mean: Images
    log_variance: Images
    pred_xstart: Images


class Diffusion(nn.Module):
    """A chain of noising steps, and its reverse by the model.

    Args:
        timesteps: the original steps (0 … 999, rising) in the chain; None: all.
        respacing: how `respace` rounds evenly spaced timesteps.

    Attributes:
        timestep_map: (steps,) int64, the original timestep of each step, which the model gets.
    """

    timestep_map: Tensor
    alphas_bar: Tensor
    alphas_bar_before: Tensor
    signal: Tensor
    noise: Tensor
    from_x: Tensor
    from_eps: Tensor
    mean_of_x0: Tensor
    mean_of_x: Tensor
    log_beta: Tensor
    log_posterior: Tensor
    betas: Tensor

    def __init__(
        self, timesteps: Sequence[int] | None = None, respacing: Respacing = "dit"
    ) -> None:
        super().__init__()
        self.respacing: Respacing = respacing
        steps = torch.tensor(range(TIMESTEPS) if timesteps is None else timesteps)
        linear = torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64)
        bar = torch.cumprod(1 - linear, 0)[steps]  # ᾱ of the steps that are kept
        before = torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))
        beta = 1 - bar / before  # IDDPM eq. 19
        posterior = beta * (1 - before) / (1 - bar)  # β̃, DDPM eq. 7
        # β̃ of the first step is 0, which has no logarithm: the second's, or β of an only step
        posterior[0] = posterior[1] if len(steps) > 1 else beta[0]
        schedules = {
            "betas": beta,
            "alphas_bar": bar,
            "alphas_bar_before": before,
            "signal": bar.sqrt(),
            "noise": (1 - bar).sqrt(),
            "from_x": bar.rsqrt(),
            "from_eps": (1 / bar - 1).sqrt(),
            "mean_of_x0": beta * before.sqrt() / (1 - bar),  # DDPM eq. 7
            "mean_of_x": (1 - before) * (1 - beta).sqrt() / (1 - bar),
            "log_beta": beta.log(),
            "log_posterior": posterior.log(),
        }
        self.register_buffer("timestep_map", steps, persistent=False)
        for name, values in schedules.items():
            # float32 even for float64 images, to match the official code bit for bit
            self.register_buffer(name, values.float(), persistent=False)

    @property
    def steps(self) -> int:
        return len(self.timestep_map)

    def respace(self, steps: int, spacing: Spacing = "ddpm") -> "Diffusion":
        """A shorter chain through ``steps`` of the original 1000, with the same ᾱ there.

        ``ddpm`` (IDDPM, section 4) spreads them evenly from first to last: DiT's own timesteps,
        of which a single one is timestep 0. ``log_snr`` spreads them evenly in
        log(√ᾱ / √(1 − ᾱ)), each the nearest timestep that is not taken yet; a single one is the
        last.
        """
        if spacing == "ddpm":
            return Diffusion(even_timesteps(steps, self.respacing)).to(self.betas.device)
        kept = self._even_in_log_snr(steps) if steps > 1 else [TIMESTEPS - 1]
        return Diffusion(kept).to(self.betas.device)

    def _even_in_log_snr(self, steps: int) -> list[int]:
        log_snr = (self.signal.double() / self.noise.double()).log().cpu()  # falls with t
        wanted = torch.linspace(log_snr[0], log_snr[-1], steps, dtype=torch.float64)
        nearest = (log_snr - wanted[:, None]).abs().argmin(1).tolist()
        kept: list[int] = []
        for i, t in enumerate(nearest):
            first = kept[-1] + 1 if kept else 0
            last = self.steps - (steps - i)  # as many are left as are still to be taken
            kept.append(min(max(t, first), last))
        return kept

    def q_sample(self, x0: Images, t: Indices, noise: Images) -> Images:
        """x_t = √ᾱ x_0 + √(1 − ᾱ) ε (DDPM eq. 4)."""
        return at(self.signal, t) * x0 + at(self.noise, t) * noise

    def pred_xstart(self, model_output: Outputs, x_t: Images, i: Indices) -> Images:
        """The x_0 that the model's ε implies (DDPM eq. 4 solved for it), not clipped."""
        return self._xstart(model_output.chunk(2, dim=1)[0], x_t, i)

    def _xstart(self, eps: Images, x_t: Images, i: Indices) -> Images:
        return at(self.from_x, i) * x_t - at(self.from_eps, i) * eps

    def p_mean_variance(self, model_output: Outputs, x_t: Images, i: Indices) -> Prediction:
        """The prediction of the previous state from the model's output; x_0 is not clipped.

        Args:
            model_output: ε, then the variance's interpolation v in [-1, 1].
            i: step of this chain (not the original timestep).
        """
        x0 = self.pred_xstart(model_output, x_t, i)
        v = model_output.chunk(2, dim=1)[1]
        share = (v + 1) / 2  # IDDPM eq. 15
        log_variance = share * at(self.log_beta, i) + (1 - share) * at(self.log_posterior, i)
        return Prediction(self._posterior_mean(x0, x_t, i), log_variance, x0)

    def loss(
        self, model_output: Outputs, x0: Images, x_t: Images, t: Indices, noise: Images
    ) -> dict[str, PerSample]:
        """``loss`` = ``mse`` of ε + ``vlb``, the variational bound's term in bits per dimension.

        Only the variance learns from ``vlb`` (IDDPM section 3.1); its weight is 1, as in DiT.
        """
        eps, v = model_output.chunk(2, dim=1)
        mse = image_mean((noise - eps).square())
        guess = self._xstart(eps.detach(), x_t, t)
        log_posterior = at(self.log_posterior, t).to(v.dtype)
        half = (at(self.log_beta, t) - log_posterior) / 2
        log_variance = torch.addcmul(log_posterior + half, v, half)  # IDDPM eq. 15
        # the posterior means differ by their part of x_0 alone
        apart = (at(self.mean_of_x0, t) * (x0 - guess)).square()
        kl = normal_kl(apart, log_posterior, log_variance)
        vlb, last = image_mean(kl), t == 0
        # one image in a thousand; to check for any, the host would have to wait for the GPU
        if not t.is_cpu or last.any():
            mean = self._posterior_mean(guess, x_t, t)
            nll = -discretized_log_likelihood(x0, mean, log_variance / 2)
            vlb = torch.where(last, image_mean(nll), vlb)
        vlb = vlb / math.log(2)
        return {"loss": mse + vlb, "mse": mse, "vlb": vlb}

    def step(self, model_output: Outputs, x_t: Images, i: Indices, noise: Images) -> Images:
        """One ancestral step x_i → x_{i−1}; the last, i = 0, adds no noise (DDPM algorithm 2)."""
        mean, log_variance, _ = self.p_mean_variance(model_output, x_t, i)
        not_last = (i != 0).view(-1, 1, 1, 1)
        return mean + not_last * (log_variance / 2).exp() * noise

    def ddim_step(self, model_output: Outputs, x_t: Images, i: Indices) -> Images:
        """One deterministic step x_i → x_{i−1} (DDIM, arXiv:2010.02502, eq. 12 with σ = 0)."""
        eps = model_output.chunk(2, dim=1)[0]
        x0 = self.pred_xstart(model_output, x_t, i)
        before = at(self.alphas_bar_before, i)
        return x0 * before.sqrt() + (1 - before).sqrt() * eps

    def _posterior_mean(self, x0: Images, x_t: Images, i: Indices) -> Images:
        """Mean of q(x_{i−1} | x_i, x_0), DDPM eq. 7."""
        return at(self.mean_of_x0, i) * x0 + at(self.mean_of_x, i) * x_t


def at(schedule: Float[Tensor, " steps"], i: Indices) -> Float[Tensor, "batch 1 1 1"]:
    """The values of a schedule at each image's step."""
    return schedule[i].view(-1, 1, 1, 1)


def image_mean(x: Images) -> PerSample:
    """Mean over an image's numbers."""
    return x.flatten(1).mean(1)


def normal_kl(apart: Tensor, log_var_a: Tensor, log_var_b: Tensor) -> Tensor:
    """KL(a ‖ b) between normal distributions, elementwise, in nats; shapes broadcast.

    Args:
        apart: (μ_a − μ_b)².
    """
    difference = log_var_a - log_var_b
    weight = torch.add(apart * (-log_var_a).exp(), 1)
    return (difference.exp() * weight - difference - 1) / 2


def discretized_log_likelihood(x: Images, mean: Images, log_std: Images) -> Images:
    """log of a normal distribution's mass in the bin of x, elementwise (DDPM eq. 13), nats.

    256 bins over [-1, 1], the outer two open-ended.
    """
    centred = x - mean
    ends = torch.stack((centred - 1 / 255, centred + 1 / 255))
    below, up_to = _normal_cdf((-log_std).exp() * ends).unbind()
    mass = torch.where(x < -0.999, up_to, torch.where(x > 0.999, 1 - below, up_to - below))
    return mass.clamp(min=TINY).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of Page (1977), as IDDPM uses it."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
