"""``fraction``: the part of a crossed grid that is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpdit.decisions.fractions import Effects, Fraction, fraction, least
from mpdit.errors import ConfigError
from mpdit.grid.grid import Grid
from mpdit.grid.settings import shortest


@dataclass(frozen=True)
class Chosen:
    """The cells of a fraction, and the names of its factors.

    Attributes:
        cells: the values of the axes of each cell that is run.
        factors: the names of the factors, by their index in an effect.
    """

    cells: frozenset[str]
    factors: tuple[str, ...]
    found: Fraction


def cell(axes: dict[str, Any]) -> str:
    """The name of a cell: its axes' values."""
    return repr(sorted(axes.items()))


def choose(grid: Grid, cells: Sequence[dict[str, Any]]) -> Chosen:
    """Choose the fraction that a grid declares.

    Args:
        cells: the values of the axes of every cell that no exclusion leaves out.

    Raises:
        ConfigError: where it cannot estimate the declared effects, with the nearest that can.
    """
    import numpy as np

    axes = [axis for axis in grid.axes if len(axis.choices) > 1]
    levels: list[dict[str, int]] = [{} for _ in axes]
    codes = np.array(
        [
            [
                known.setdefault(repr([values[key] for key in axis.keys]), len(known))
                for axis, known in zip(axes, levels, strict=True)
            ]
            for values in cells
        ]
    )
    several = [index for index, known in enumerate(levels) if len(known) > 1]
    if len(several) < 2:
        raise _error(grid, "the exclusions leave fewer than two axes to cross: write no fraction")
    codes, seeds = codes[:, several], len(grid.seeds)
    asked = grid.declared.fraction
    sizes: dict[Effects, int] = {
        "main": least(codes, "main", seeds), "two-way": least(codes, "two-way", seeds)
    }  # fmt: skip
    effects: Effects = "main" if asked == "main" else "two-way"
    size = sizes[effects]
    if isinstance(asked, int):
        size = asked
        if size > len(cells):
            raise _error(grid, f"the grid has {len(cells)} variants: write no fraction to run all")
        if size < sizes["main"]:
            raise _error(
                grid,
                f"the main effects of {len(several)} factors need {sizes['main']} variants at "
                f"least: write 'fraction: {sizes['main']}', or 'fraction: main'",
            )
        effects = "two-way" if size >= sizes["two-way"] else "main"
    found = fraction(codes, effects, size)
    if effects == "two-way" and not any(len(term) == 2 for term in found.ratios):
        raise _error(
            grid,
            "no two factors have all their combinations, so that no interaction can be estimated: "
            "write 'fraction: main'",
        )
    chosen = frozenset(cell(cells[row]) for row in found.rows)
    names = tuple(shortest(axes[index].keys[0]) for index in several)  # of zipped keys the first
    return Chosen(chosen, names, found)


def _error(grid: Grid, message: str) -> ConfigError:
    return grid.source.error(("fraction",), message)
