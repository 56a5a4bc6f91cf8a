"""The parts that a conditioning mode is made of, each a row, and the named modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpdit.catalogue.flags import EDM2, PAPER
from mpdit.catalogue.registry import Registry, Row, decorator


def one_a_channel(width: int) -> int:
    return width


def one_a_pair(width: int) -> int:
    return width // 2


def one_a_channel_and_one(width: int) -> int:
    return width + 1


def no_number(_width: int) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class PartRow(Row):
    """How the conditioning vector acts on a sublayer.

    Attributes:
        width: the model's width → how many numbers the part needs.
        implementation: ``(x, values) -> x`` on a sublayer's input: x (batch, tokens, width), the
            numbers (batch, 1, their width). The numbers start at zero; at zero, a part should
            return x unchanged. None for the gate, which acts on the output.
        unit: the model's width → how many of the first numbers have unit magnitude at
            initialization instead of zero, because their map has no gain.
    """

    width: Callable[[int], int] = one_a_channel
    unit: Callable[[int], int] = no_number


_MODULATION = "mpdit.model.modulation"

MODES = {
    "adaln": ("scale", "shift", "gate"),
    "rotation": ("rotation", "gate"),
    "rotation_scale": ("scale", "rotation", "gate"),
    "rotation_only": ("rotation",),
    "none": (),
}
"""The named conditioning modes; any other subset is written by its parts, ``scale+gate``."""

PARTS = Registry(
    "conditioning part",
    PartRow,
    "model.conditioning",
    [
        PartRow(
            name="scale",
            does="x (1 + s)",
            source="arXiv:2212.09748",
            implementation=f"{_MODULATION}:scale",
        ),
        PartRow(
            name="shift",
            does="x + b",
            source="arXiv:2212.09748",
            implementation=f"{_MODULATION}:shift",
        ),
        PartRow(
            name="rotation",
            does="each pair of channels rotated by an angle",
            source=f"{PAPER} eq. 6",
            width=one_a_pair,
            implementation=f"{_MODULATION}:rotate",
        ),
        PartRow(
            name="blended_shift",
            does="mp_sum(x, b, β), with a learned blend β that starts at 0.1",
            source=f"{EDM2} eq. 88, map-dit branch final",
            width=one_a_channel_and_one,
            unit=one_a_channel,
            implementation=f"{_MODULATION}:blend_shift",
        ),
        PartRow(
            name="gate",
            does="the sublayer's output times g or 1 + g, or rotated (model.gate)",
            source="arXiv:2212.09748, map-dit branch final",
        ),
    ],
    note=f"parts joined by +, or a mode: {', '.join(MODES)}",
)

PARTS.reserve(MODES, "a conditioning mode")


def in_order(parts: set[str]) -> tuple[str, ...]:
    """Parts in the order of application, which is the order of their rows; the gate is last."""
    return tuple(p for p in PARTS if p in parts and p != "gate") + ("gate",) * ("gate" in parts)


def part(
    name: str, *, does: str, source: str = "", width: Callable[[int], int] = one_a_channel
) -> Callable[[Any], Any]:
    """Register a function ``(x, values) -> x`` as a conditioning part.

    x is a sublayer's input (batch, tokens, width), values (batch, 1, the part's numbers). The
    values are zero at initialization; at zero, the part should return x unchanged.

    Args:
        name: the part's name in ``model.conditioning``.
        does: what the part does, in one line.
        source: paper and equation.
        width: a function: the model's width → how many numbers the part needs. By default one for
            each channel.

    Raises:
        ConfigError: when the name is taken.
    """
    return decorator(PARTS, name=name, does=does, source=source, width=width)
