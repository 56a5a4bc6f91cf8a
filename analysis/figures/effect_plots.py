"""Figures of a factorial grid: main effects and interactions of two factors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import forest, panels, style
from analysis.figures.figure import figure
from analysis.judging import comparison, distances
from analysis.judging.effects import Effect, code, label
from analysis.judging.numerals import probability
from analysis.study import Study

Cell = tuple[str, Any]
"""A factor and one of its levels."""


@figure(
    title="Main effects",
    caption="Each level against its factor's first level, averaged over the grid's settings of the "
    "other factors. Intervals are corrected for all effects. Filled marks: the effect "
    "differs from zero.",
    place=110,
)
def main_effects(study: Study) -> Figure:
    """Draw each level's effect against its factor's first level, with its interval.

    Filled marks are effects that differ from zero.
    """
    effects, rules = comparison.factorial(study).of(1), distances.rules(study)
    rows = [
        forest.ForestRow(
            label(effect), effect.estimate, _p(effect.p), style.PALETTE[0], effect.is_conclusive
        )
        for effect in effects
    ]
    return forest.draw(rows, rules, distances.title(study))


@figure(
    title="Interactions of two factors",
    caption="Half the difference between a factor's effect at the other factor's level and at its "
    "first level. Blue: the two together are better than their separate effects predict. Star: the "
    "interaction differs from zero, corrected for all effects. The colour scale ends at twice the "
    "largest half width of the intervals, or beyond, so that noise stays pale.",
    place=120,
)
def interactions(study: Study) -> Figure:
    """Draw two-way interactions as a heat map.

    Blue: the two factors together are better than their separate effects predict. Star: the
    interaction differs from zero, corrected for all effects.
    """
    fit, rules = comparison.factorial(study), distances.rules(study)
    sign = 1 if rules.lower_is_better else -1
    cells = _cells(fit.effects, fit.factors)
    size = len(cells)
    values = np.full((size, size), np.nan)
    stars = np.zeros((size, size), dtype=bool)
    for effect in fit.of(2):
        column, row = sorted(cells.index(cell) for cell in _pairs(effect))
        values[row, column] = effect.estimate.value
        stars[row, column] = effect.is_conclusive
    halves = [effect.estimate.half_width for effect in fit.of(2)]
    noise = np.nanmax(halves) if np.isfinite(halves).any() else 0.0
    reach = max(np.nanmax(np.abs(values)), 2 * noise) or 1.0
    if rules.scale == "ratio":  # in percent, which is close enough for an interaction
        values, reach = 100 * np.expm1(values), 100 * float(np.expm1(reach))
    digits = max(0, 1 - int(np.floor(np.log10(reach))))
    figure, axes = panels.single()
    names = _names(cells)
    last = np.flatnonzero(~np.isnan(values).all(axis=0))[-1] + 1
    shown = values[1:, :last]
    image = axes.imshow(sign * shown, cmap="RdBu_r", vmin=-reach, vmax=reach)
    for row, column in np.argwhere(~np.isnan(shown)):
        value = shown[row, column]
        # not style.INK or PAPER, which the report replaces in dark mode
        ink = "#fefefe" if abs(value) > 0.6 * reach else "#010101"
        text = f"{value:+.{digits}f}{'*' if stars[row + 1, column] else ''}".replace("-", "−")
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=5, color=ink)
    axes.set_xticks(range(last), names[:last], rotation=90)
    axes.set_yticks(range(size - 1), names[1:])
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=5.5)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="top", shrink=0.7, aspect=30, pad=0.02)
    unit = ", %" if rules.scale == "ratio" else ""
    bar.set_label(f"interaction (change of {distances.title(study)}{unit})", fontsize=6)
    bar.ax.tick_params(labelsize=5.5)
    figure.set_size_inches(style.COLUMN, 1.2 + 0.24 * size)
    return figure


def _pairs(effect: Effect) -> list[Cell]:
    return list(zip(effect.factors, effect.levels, strict=True))


def _cells(effects: Iterable[Effect], factors: Sequence[str]) -> list[Cell]:
    """Return all levels with an effect, in grid order; some have only interactions."""
    found = dict.fromkeys(cell for effect in effects for cell in _pairs(effect))
    return sorted(found, key=lambda cell: factors.index(cell[0]))


def _names(cells: list[Cell]) -> list[str]:
    """Return the cells' codes, with the factor's name if two cells have the same code."""
    codes = [code(*cell) for cell in cells]
    return [
        short if codes.count(short) == 1 else f"{factor} {short}"
        for short, (factor, _) in zip(codes, cells, strict=True)
    ]


def _p(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"p {probability(value)}" if value < 0.001 else f"p = {probability(value)}"
