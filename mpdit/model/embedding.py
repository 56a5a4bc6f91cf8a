"""From timesteps, positions and pixels to vectors of the model's width, and back to pixels."""

import math

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from mpdit.catalogue.respacing import TIMESTEPS
from mpdit.flops import FOURIER_FEATURES, UNCERTAINTY_FEATURES, time_features
from mpdit.model.layers import MLP, MPEmbedding, MPLinear, normalize, turned
from mpdit.modelconfig import ModelConfig


def frequencies(count: int, base: float = 10000.0) -> Float[Tensor, " count"]:
    """base^(−i / count) for i = 0 … count − 1, float64."""
    return base ** -(torch.arange(count, dtype=torch.float64) / count)


def angles_of_places(
    omega: Float[Tensor, " count"], side: int
) -> list[Float[Tensor, "tokens count"]]:
    """column · ω and row · ω of the tokens of a square, row by row."""
    rows, columns = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    return [place.flatten()[:, None] * omega for place in (columns, rows)]


def position_table(config: ModelConfig, side: int) -> Float[Tensor, "tokens width"]:
    """Sines and cosines of a token's column, then of its row (MAE's 2-D table), float64.

    Args:
        side: tokens in a row of the image.
    """
    angles = angles_of_places(frequencies(config.width // 4), side)
    table = torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=-1)
    if config.mean_free_positions:
        table = table - table.mean(-1, keepdim=True)
    if config.mean_free_table:
        table = table - table.mean()
    return normalize(table) if config.mp_pos_enc else table


class AxialRoPE(nn.Module):
    """Rotate each pair (x_i, x_{i + n/2}) of a head's n channels by its token's position.

    The angles are column · f_i and row · f_i with f_i = 100^(−4i / n), i = 0 … n/4 − 1 (RoPE-ViT:
    Heo et al., arXiv:2403.13298, section 3.1), so that q·k depends on the tokens' distance alone.

    Args:
        channels: of a head, n.
        side: tokens in a row of the image.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        angle = torch.cat(angles_of_places(frequencies(channels // 4, 100.0), side), dim=-1)
        for name, table in (("cos", angle.cos()), ("sin", angle.sin())):
            table = table.to(torch.get_default_dtype())
            self.register_buffer(name, table, persistent=False)

    def forward(
        self, x: Float[Tensor, "batch heads tokens channels"]
    ) -> Float[Tensor, "batch heads tokens channels"]:
        return turned(x, self.cos, self.sin).to(x.dtype)


class Sinusoidal(nn.Module):
    """[cos(t·f), sin(t·f)] with f_i = 10000^(−2i/D), t in 0 … 999 (DiT)."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        table = frequencies(width // 2).to(torch.get_default_dtype())
        self.register_buffer("frequencies", table, persistent=False)

    def forward(self, t: Real[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        angle = t[:, None] * self.frequencies
        return torch.cat((angle.cos(), angle.sin()), dim=-1)


class Fourier(nn.Module):
    """a·cos(t·scale + shift), scale 2π·N(0, 1) and shift 2π·U(0, 1) drawn once (EDM2 eq. 75).

    a is EDM2's √2, for unit magnitude, or 1, for 1/√2 (map-dit's Table 2). The product with √2 is
    in float32 in a float64 model too, as in map-dit's branch final.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, unit: bool, count: int = FOURIER_FEATURES) -> None:
        super().__init__()
        self.unit = unit
        self.register_buffer("scale", torch.empty(count))
        self.register_buffer("shift", torch.empty(count))

    def reset(self, generator: torch.Generator | None) -> None:
        self.scale.normal_(generator=generator).mul_(2 * math.pi)
        self.shift.uniform_(generator=generator).mul_(2 * math.pi)

    def forward(self, t: Real[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        wave = (t[:, None] * self.scale + self.shift).cos()
        return (math.sqrt(2) * wave.float()).to(wave.dtype) if self.unit else wave


class Uncertainty(nn.Module):
    """u(t), a linear map of Fourier features: the log of the expected loss at each noise level
    (EDM2 eq. 21). Sampling does not use it."""

    def __init__(self, *, normalized: bool) -> None:
        super().__init__()
        self.features = Fourier(unit=True, count=UNCERTAINTY_FEATURES)
        self.linear = MPLinear(UNCERTAINTY_FEATURES, 1, normalized=normalized, zero=not normalized)

    def forward(self, t: Real[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        # no matrix product: u stays in float32 under autocast
        u: Tensor = (self.features(t) * self.linear.matrix()[0]).sum(-1)
        return u


class TimeEmbedding(nn.Module):
    """Features of the timestep, then an MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.features: nn.Module
        if config.time_embedding == "table":
            # It follows the weight flags, not mp_embedding, as in the official code.
            self.features = MPEmbedding(TIMESTEPS, width, normalized=config.weight_normalization)
        elif config.time_embedding == "fourier":
            self.features = Fourier(unit=False)
        elif config.time_embedding == "mp_fourier":
            self.features = Fourier(unit=True)
        else:
            self.features = Sinusoidal(width)
        self.mlp = MLP(config, time_features(config), width, width)

    def forward(self, t: Real[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        embedded: Tensor = self.mlp(self.features(t))
        return embedded


def patchify(
    x: Float[Tensor, "batch channels height width"], patch: int
) -> Float[Tensor, "batch tokens numbers"]:
    """Images → tokens row by row; a token's numbers by row in patch, column, channel."""
    B, C, H, W = x.shape
    x = x.view(B, C, H // patch, patch, W // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, -1, patch * patch * C)


def unpatchify(
    tokens: Float[Tensor, "batch tokens numbers"], patch: int, side: int
) -> Float[Tensor, "batch channels height width"]:
    """The inverse of `patchify` for a square image of ``side`` tokens."""
    x = tokens.view(len(tokens), side, side, patch, patch, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, side * patch, side * patch)
