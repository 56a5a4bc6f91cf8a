"""How the conditioning vector acts on a sublayer: scale, shift, rotation, blended shift, gate.

docs/adding.md shows how to add a part.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpdit.catalogue import PARTS
from mpdit.flops import part_width
from mpdit.model.layers import MPLinear, mp_coefficients, turned
from mpdit.modelconfig import ModelConfig

Tokens = Float[Tensor, "batch tokens width"]
PerChannel = Float[Tensor, "batch 1 width"]
PerPair = Float[Tensor, "batch 1 pairs"]
Values = dict[str, Tensor]
"""The values of each part of one sublayer's modulation, (batch, 1, its width)."""


def scale(x: Tokens, s: PerChannel) -> Tokens:
    """x(1 + s)."""
    return x * (1 + s)


def shift(x: Tokens, b: PerChannel) -> Tokens:
    """x + b."""
    return x + b


def rotate(x: Tokens, angle: PerPair) -> Tokens:
    """Each pair (x_i, x_{i+D/2}) turned by θ_i: the token's norm stays (map-dit, eq. 6).

    The paper pairs neighbours; halves are the same function with the channels in another order.
    """
    return turned(x, angle.cos(), angle.sin())


def blend_shift(x: Tokens, values: Float[Tensor, "batch 1 width+1"]) -> Tokens:
    """mp_sum(x, b, β) with β = sigmoid(a − 2.1972) (map-dit, branch final).

    The values are b, of unit magnitude, and the number a, with a β of 0.1 for 0.
    """
    b, a = values[..., :-1], values[..., -1:]
    blend = (a - 2.1972).sigmoid()
    length = torch.hypot(1 - blend, blend)
    return torch.addcmul(b * (blend / length), x, (1 - blend) / length)


DITS_CHUNKS = ("shift", "scale")
"""The first parts of a modulation's outputs, in DiT's order; then the other parts, the gate
last."""


def layout(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts in the order of their rows in a modulation's map."""
    first = tuple(part for part in DITS_CHUNKS if part in parts)
    return (*first, *(part for part in parts if part not in first))


class Modulation(nn.Module):
    """One linear map from the conditioning to the values of all parts of all sublayers.

    ``modulation: joint`` has one learned gain; ``separate`` has one for each part of each sublayer,
    which is the same function as separate linear maps, since rows are normalized one by one;
    ``plain`` is not normalized and has none. The numbers that are not zero at initialization
    (`PartRow.unit`) come from a second map, ``unit``, without gain.
    """

    def __init__(self, config: ModelConfig, parts: tuple[str, ...], sublayers: int) -> None:
        super().__init__()
        self.parts = layout(parts)
        self.sublayers = sublayers
        self.units = [PARTS.find(part).unit(config.width) for part in self.parts] * sublayers
        widths = [part_width(part, config) for part in self.parts] * sublayers
        self.sizes = [n - unit for n, unit in zip(widths, self.units, strict=True)]
        self.applied: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            part: PARTS.find(part).load() for part in parts if part != "gate"
        }
        self.embedding: nn.Parameter | None = None
        self.linear: MPLinear | None = MPLinear(
            config.width,
            sum(self.sizes),
            normalized=config.weight_normalization and config.modulation != "plain",
            zero=True,
            gains=self.sizes if config.modulation == "separate" else None,
        )
        self.unit = (
            MPLinear(config.width, sum(self.units), normalized=config.weight_normalization)
            if any(self.units)
            else None
        )

    def forward(self, c: Float[Tensor, "batch numbers"]) -> list[Values]:
        """The activated conditioning, or the output of the shared map → each sublayer's values.

        The values have the dtype of ``c``: under autocast float32, for rotation's cos and sin.
        """
        numbers = c if self.linear is None else self.linear(c).to(c.dtype)
        if self.embedding is not None:
            numbers = numbers + self.embedding
        found = numbers[:, None].split(self.sizes, dim=-1)
        if self.unit is not None:
            units = self.unit(c).to(c.dtype)[:, None].split(self.units, dim=-1)
            found = tuple(torch.cat(both, dim=-1) for both in zip(units, found, strict=True))
        values = iter(found)
        return [dict(zip(self.parts, values, strict=False)) for _ in range(self.sublayers)]

    def modulate(self, x: Tokens, values: Values) -> Tokens:
        """A sublayer's input under the parts that act on it, in their order."""
        applied = self.applied
        if "scale" in applied and "shift" in applied:  # both in one pass over the tokens
            x = torch.addcmul(values["shift"], x, 1 + values["scale"])
            applied = {part: f for part, f in applied.items() if part not in DITS_CHUNKS}
        for part, apply in applied.items():
            x = apply(x, values[part])
        return x


class Residual:
    """x ← join(x, gate ⊙ branch): the gate is g (AdaLN-Zero), 1 + g or a rotation, the join
    mp_sum(·, ·, 0.3) or ``+``."""

    def __init__(self, config: ModelConfig) -> None:
        self.gate = config.gate
        self.of_x, self.of_branch = (
            mp_coefficients(config.residual_t, float32=config.float32_sums)
            if config.mp_residual
            else (1.0, 1.0)
        )

    def __call__(self, x: Tokens, branch: Tokens, values: Values) -> Tokens:
        gate = values.get("gate")
        if gate is not None and self.gate == "rotation":
            branch, gate = rotate(branch, gate), None
        if gate is None:
            return torch.add(branch * self.of_branch, x, alpha=self.of_x)
        if self.gate == "one_plus":
            gate = 1 + gate
        # The join's factor multiplies the gate: D numbers instead of T·D.
        return torch.add(branch * (self.of_branch * gate), x, alpha=self.of_x)
