"""The norms of tokens before a sublayer: LayerNorm, RMSNorm, DyT, none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mpdit.modelconfig import ModelConfig

EPS = 1e-6
ALPHA = 0.5
"""DyT's initial α (Zhu et al.)."""
DYT_MAGNITUDE = 0.4166
"""√E[tanh(αx)²] for normally distributed x and the first α."""


class LayerNorm(nn.Module):
    """(x − mean x) / √(var x + 1e-6) over the last axis, without affine parameters."""

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return F.layer_norm(x, x.shape[-1:], eps=EPS)


class RMSNorm(nn.Module):
    """γ ⊙ x / √(mean x² + 1e-6) over the last axis, in x's dtype, computed at least in float32.

    Args:
        gain: the number of channels of a learned γ, which starts at 1; None: without γ.
    """

    def __init__(self, gain: int | None = None) -> None:
        super().__init__()
        self.gain = None if gain is None else nn.Parameter(torch.ones(gain))

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.rms_norm(exact, x.shape[-1:], self.gain, eps=EPS).to(x.dtype)


class DyT(nn.Module):
    """Dynamic Tanh, γ ⊙ tanh(αx) + β with α = 0.5 and β = 0 at first (Zhu et al.,
    arXiv:2503.10622).

    Args:
        gain: γ at first: 1, or 1 / 0.4166 for unit magnitude.
    """

    def __init__(self, width: int, gain: float = 1.0) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), ALPHA))
        self.gain = nn.Parameter(torch.full((width,), gain))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return torch.addcmul(self.shift, self.gain, torch.tanh(self.alpha * x))


def norm_of(config: ModelConfig) -> nn.Module:
    """The norm before one sublayer, as ``config.norm`` says."""
    match config.norm:
        case "layer":
            return LayerNorm()
        case "rms":
            return RMSNorm()
        case "dyt":
            return DyT(config.width, 1 / DYT_MAGNITUDE if config.mp_silu else 1.0)
        case _:
            return nn.Identity()
