"""Magnitude-preserving building blocks (EDM2: Karras et al., arXiv:2312.02696).

An operation preserves magnitude when inputs of unit root mean square leave it at unit root mean
square. Each block below is either that or its plain counterpart, as the config's flags say.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mpdit.flops import mlp_maps
from mpdit.model.norm import RMSNorm
from mpdit.modelconfig import ModelConfig

EPS = 1e-4
SILU_MAGNITUDE = 0.596
"""√E[silu(x)²] for normally distributed x; also √E[(silu(a) b)²] = √(E[silu(a)²] E[b²]) for a and b
that are independent and normally distributed, as SwiGLU's are from two random maps."""


def magnitude(x: Float[Tensor, "... width"]) -> Float[Tensor, ""]:
    """Root mean square over the last axis, averaged over all positions (EDM2, section 2.1)."""
    return x.square().mean(-1).sqrt().mean()


class _ToLength(torch.autograd.Function):
    """Rows of x at a given length: x·length / (‖x‖ + 1e-4), in x's dtype.

    Half-precision rows have their norms and sums in float32. Autograd's own chain through the norm
    costs twice to three times the passes over x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: Tensor | float) -> Tensor:
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
        inverse = torch.add(norm, EPS).reciprocal_()
        factor = inverse * length
        ctx.save_for_backward(x, norm, inverse, factor)
        return (x * factor).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, norm, inverse, factor = ctx.saved_tensors
        exact = x.to(norm.dtype)
        product = grad * exact
        of_length = product.sum(-1, keepdim=True).mul_(inverse)
        along = of_length * factor / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        # into the product's memory: for weights, fresh memory costs more than the arithmetic
        rows = torch.mul(grad, factor, out=product).addcmul_(exact, along, value=-1)
        return rows.to(x.dtype), of_length if ctx.needs_input_grad[1] else None


def to_length(x: Tensor, length: Tensor | float) -> Tensor:
    """Rows of the last axis at a length (a number, or one a row): x·length / (‖x‖ + 1e-4)."""
    rows: Tensor = _ToLength.apply(x, length)
    return rows


def normalize(x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """Every row of the last axis at unit magnitude: x·√n / (‖x‖ + 1e-4)."""
    return to_length(x, math.sqrt(x.shape[-1]))


def mp_coefficients(t: float, *, float32: bool = False) -> tuple[float, float]:
    """The factors of a and b in ``mp_sum(a, b, t)``.

    ``float32``: t and the root are rounded to float32, as in map-dit's branch final.
    """
    if float32:
        rounded = np.float32(t)
        of_a, of_b = np.float32(1) - rounded, rounded
        length = float(np.sqrt(of_a * of_a + of_b * of_b))
        return float(of_a) / length, float(of_b) / length
    length = math.hypot(1 - t, t)
    return (1 - t) / length, t / length


def mp_sum(a: Tensor, b: Tensor, t: float, *, float32: bool = False) -> Tensor:
    """((1 − t)·a + t·b) / √((1 − t)² + t²), EDM2 eq. 88; the shapes broadcast."""
    of_a, of_b = mp_coefficients(t, float32=float32)
    return torch.add(b * of_b, a, alpha=of_a)


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596, EDM2 eq. 81: unit magnitude for normally distributed x."""
    return F.silu(x).div_(SILU_MAGNITUDE)


def activation(config: ModelConfig) -> Callable[[Tensor], Tensor]:
    return mp_silu if config.mp_silu else F.silu


def summed(config: ModelConfig, a: Tensor, b: Tensor) -> Tensor:
    """The sum of two embeddings: an even magnitude-preserving sum, or ``+``."""
    return mp_sum(a, b, 0.5, float32=config.float32_sums) if config.mp_residual else a + b


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_{i + n/2}) of the last axis by an angle, given its cos and sin."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class MPLinear(nn.Module):
    """A linear map without bias, its rows normalized when ``normalized`` (EDM2 eq. 47).

    y = x Wᵀ with W = normalize(w)·gain / √inputs, or W = w without normalization.

    Args:
        inputs, outputs: features.
        normalized: whether the rows of w are normalized where they are used.
        zero: the map is zero at initialization: by a learned gain, or by w where not normalized.
        gains: how the outputs are split into groups with one learned gain each (zero maps only);
            None is one group.

    Attributes:
        ready: whether ``weight`` holds normalize(w) / √inputs times its length at the moment, as
            `mpdit.training.weights` sets it for the passes of a training step.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        normalized: bool,
        zero: bool = False,
        gains: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.normalized = normalized
        self.ready = False
        self.length = 1.0  # of W's rows, where there is no gain
        self.zero = zero
        self.groups = tuple(gains or (outputs,))
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.gain = nn.Parameter(torch.empty(len(self.groups))) if zero and normalized else None

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None) -> None:
        if self.normalized:
            self.weight.normal_(generator=generator)
            if self.gain is not None:
                self.gain.zero_()
        elif self.zero:
            self.weight.zero_()
        else:
            kaiming_uniform(self.weight, generator)

    def matrix(self) -> Float[Tensor, "outputs inputs"]:
        """W, the matrix that is applied."""
        if not self.normalized:
            return self.weight
        if self.ready:
            gains = None if self.gain is None else self._gains(self.gain)[:, None]
            return self.weight if gains is None else self.weight * gains
        if self.gain is None:
            return to_length(self.weight, self.length)  # √inputs and 1 / √inputs cancel
        return to_length(self.weight, self._gains(self.gain)[:, None])

    def _gains(self, gain: Float[Tensor, " groups"]) -> Float[Tensor, " outputs"]:
        """The gain of each output; one number where it is that of all."""
        if len(self.groups) == 1:
            return gain
        return torch.cat([g.expand(n) for g, n in zip(gain, self.groups, strict=True)])

    @torch.no_grad()
    def fold(self) -> None:
        """Store W as a plain weight: the same map, which must not be trained any more."""
        self.weight.copy_(self.matrix())
        self.normalized, self.gain = False, None

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        if not self.ready:
            return F.linear(x, self.matrix())
        y = F.linear(x, self.weight)
        return y if self.gain is None else y * self._gains(self.gain)


class MPEmbedding(nn.Module):
    """A table of rows: normalize(w)[index] when ``normalized``, else w[index]."""

    def __init__(self, rows: int, width: int, *, normalized: bool) -> None:
        super().__init__()
        self.normalized = normalized
        self.weight = nn.Parameter(torch.empty(rows, width))

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None) -> None:
        if self.normalized:
            self.weight.normal_(generator=generator)
        else:
            kaiming_uniform(self.weight, generator)

    @torch.no_grad()
    def fold(self) -> None:
        if self.normalized:
            self.weight.copy_(normalize(self.weight))
            self.normalized = False

    def forward(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        rows = F.embedding(index, self.weight)
        return normalize(rows) if self.normalized else rows


class MLP(nn.Module):
    """Linear, SiLU, linear; or with a second map V to be gated, SwiGLU: W₂ (silu(W₁ x) ⊙ V x)."""

    def __init__(
        self, config: ModelConfig, inputs: int, hidden: int, outputs: int, *, gated: bool = False
    ) -> None:
        super().__init__()
        normalized = config.weight_normalization
        self.gated = gated
        # Rows are normalized one by one, so one joint map is the same function as two maps.
        self.first = MPLinear(inputs, 2 * hidden if gated else hidden, normalized=normalized)
        self.act = activation(config)
        self.second = MPLinear(hidden, outputs, normalized=normalized)
        if config.mp_silu and normalized:
            # The activation's factor goes into the rows, which saves passes over T·hidden numbers.
            self.act, self.second.length = F.silu, 1 / SILU_MAGNITUDE

    @classmethod
    def of_block(cls, config: ModelConfig) -> "MLP":
        _, hidden = mlp_maps(config)
        return cls(config, config.width, hidden, config.width, gated=config.mlp == "swiglu")

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        hidden = self.first(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = self.act(gate) * value
        else:
            hidden = self.act(hidden)
        y: Tensor = self.second(hidden)
        return y


class Attention(nn.Module):
    """softmax(q·k / √(D/H)) v in H heads; q and k normalized per head as ``qk_norm`` says.

    A softmax averages: from values of unit magnitude that are independent, weights a make a head's
    output o = Σ a_j v_j of magnitude √(Σ a_j²) < 1, and of 1 when all v_j are alike. The true
    factor lies between and is measured, not assumed: with ``mp_attention``, o ← o·√(D/H) / ‖o‖ per
    token and head, as q and k have it; with ``mp_attention_output``, the output of the last map
    per token (map-dit's branch final).

    Args:
        rope: rotates q and k, (batch, heads, tokens, channels), by their tokens' positions.
    """

    def __init__(self, config: ModelConfig, rope: nn.Module | None = None) -> None:
        super().__init__()
        width, normalized = config.width, config.weight_normalization
        self.rope = rope
        self.heads = config.heads
        self.cosine = config.qk_norm == "cosine"
        self.q_norm, self.k_norm = None, None
        if config.qk_norm == "rms":
            self.q_norm, self.k_norm = (RMSNorm(gain=width // self.heads) for _ in "qk")
        self.restored, self.output_restored = config.mp_attention, config.mp_attention_output
        # Rows are normalized one by one, so one map to q, k, v is the same function as three.
        self.qkv = MPLinear(width, 3 * width, normalized=normalized)
        self.out = MPLinear(width, width, normalized=normalized)

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        B, T, D = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.heads, D // self.heads)
        q, k, v = qkv.unbind(2)
        if self.cosine and not torch.compiler.is_compiling():
            qk, v = qkv.split((2, 1), dim=2)  # half the calls
            (q, k), v = normalize(qk).unbind(2), v.squeeze(2)
        elif self.cosine:  # fused, and both at once take a copy in the backward pass
            q, k = normalize(q), normalize(k)
        elif self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, H, T, D/H)
        if self.rope is not None:
            q, k = self.rope(q), self.rope(k)
        heads = self.attend(q, k, v)
        if self.restored:
            heads = normalize(heads)
        joined: Tensor = self.out(heads.transpose(1, 2).flatten(2))  # (B, T, D)
        return normalize(joined) if self.output_restored else joined

    def attend(
        self,
        q: Float[Tensor, "batch heads tokens channels"],
        k: Float[Tensor, "batch heads tokens channels"],
        v: Float[Tensor, "batch heads tokens channels"],
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """softmax(q·k / √channels) v."""
        if q.is_cpu and q.dtype == torch.bfloat16:
            # the backward pass of PyTorch's fused kernel takes four times as long there
            scores = (q @ k.mT).float() / math.sqrt(q.shape[-1])  # (B, H, T, T)
            return scores.softmax(-1).to(v.dtype) @ v
        return F.scaled_dot_product_attention(q, k, v)


def kaiming_uniform(weight: Tensor, generator: torch.Generator | None) -> None:
    """Uniform in ±√(6 / inputs), in place."""
    bound = math.sqrt(6 / weight.shape[-1])
    weight.uniform_(-bound, bound, generator=generator)
