"""Factorial grids: the main effect of each factor, and the interactions of two factors.

The effects are estimated by ordinary least squares with the seeds as blocks (statsmodels), on the
scale of `Rules`. Each level of a factor is compared with the factor's first level:

- main effect of level a: the mean at a minus the mean at the first level, over the other factors;
- interaction of a and b: half the difference between the effect of a at b and at b's first level.

These are the effects of Box, Hunter and Hunter (*Statistics for Experimenters*) for two levels.
Means are over those settings of the other factors that the grid has with both levels. So excluded
cells get no weight, and `Effect.where` names the condition under which an effect holds.

All effects are one family, as in `mpdit.decisions.family`. The main effects get half of the 5 %
error rate, and the interactions the other half, each by Bonferroni's inequality. So many
interactions do not widen the few main effects. If there are effects of one kind only, they get all
5 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from analysis.judging.contrasts import Cell, CellGrid, LeastSquares
from analysis.judging.statistics import Estimate
from analysis.study import NothingToShow
from mpdit.catalogue.flags import code_of
from mpdit.decisions.family import LEVEL, Rules
from mpdit.text import shortlist

FADES = 1 / 3
"""An effect depends on another factor if its sign differs between two levels of that factor, or if
the smaller of the two effects is less than this fraction of the larger."""
LISTED = 4
"""Of the effects that cannot be estimated, so many are named."""


@dataclass(frozen=True)
class Dependence:
    """The values of an effect at the first and at another level of a factor that it depends on."""

    factor: str
    levels: tuple[Any, Any]
    effects: tuple[float, float]


@dataclass(frozen=True)
class Effect:
    """One main effect (one factor) or two-way interaction (two).

    Attributes:
        levels: for each factor, the level that is compared with the factor's first level.
        first: for each factor, the first level.
        estimate: on the inner scale of `Rules`; its n is the number of runs in the fit. The
            interval is simultaneous for all effects.
        p: corrected for all effects: below 0.05 if the interval excludes zero. NaN if no degree of
            freedom is left.
        se, level: the estimate's standard error, and the two-sided level of its interval.
        where: factor → the levels over which the effect is averaged, if these are not all levels.
        depends: the factors whose levels reverse or remove the effect.
    """

    factors: tuple[str, ...]
    levels: tuple[Any, ...]
    first: tuple[Any, ...]
    estimate: Estimate
    p: float
    se: float
    level: float
    where: Mapping[str, tuple[Any, ...]]
    depends: tuple[Dependence, ...] = ()

    @property
    def is_interaction(self) -> bool:
        return len(self.factors) > 1

    @property
    def is_conclusive(self) -> bool:
        """Whether the effect differs from zero, corrected for all effects."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Factorial:
    """The effects of a factorial grid.

    Attributes:
        factors: the grid's factors.
        effects: main effects, then interactions.
        left_out: sentences that name the effects that cannot be estimated.
        residual_sd: standard deviation within a seed, with ``degrees`` of freedom.
    """

    factors: tuple[str, ...]
    effects: tuple[Effect, ...]
    left_out: tuple[str, ...]
    residual_sd: float
    degrees: int

    def of(self, order: int) -> list[Effect]:
        """Return the main effects (1), or the interactions of two factors (2).

        Raises:
            NothingToShow: if none can be estimated.
        """
        found = [effect for effect in self.effects if len(effect.factors) == order]
        if not found:
            raise NothingToShow(_NOTHING[order])
        return found


_NOTHING = {
    1: "no main effect can be told from the interactions",
    2: "no two axes of the grid have all their combinations",
}


def factorial(
    runs: pd.DataFrame,
    factors: Sequence[str],
    rules: Rules,
    widened: float = 1.0,
    fraction: str | None = None,
) -> Factorial:
    """Fit main effects and two-way interactions.

    Args:
        runs: one row per run: ``value``, ``seed``, and one column per factor. A factor's levels are
            in the order of its categories, or else of their first appearance.
        widened: a factor on standard errors, for runs that are not independent.
        fraction: if the runs are a fraction of a grid, its purpose: ``main`` (main effects only) or
            ``two-way``.
    """
    grid = CellGrid.of(runs, factors, is_fraction=fraction == "two-way")
    pairs, empty = list(itertools.combinations(factors, 2)), []
    if fraction == "main":
        pairs = []
    for a, b in list(pairs):
        if len(absent := np.argwhere(~grid.seen[a, b])):
            pairs.remove((a, b))
            cell = grid.levels[a][absent[0, 0]], grid.levels[b][absent[0, 1]]
            empty.append((f"{a} × {b}", name((a, b), cell)))
    left_out = [f"{pair} cannot be estimated: no run is '{cell}'" for pair, cell in empty]
    if len(empty) > LISTED:
        named = shortlist([pair for pair, _ in empty], LISTED)
        left_out = [f"{named} cannot be estimated: they have combinations without a run"]
    asked = [*((factor,) for factor in factors), *pairs]
    fit = LeastSquares(
        grid, [(), ("seed",), *asked], runs["value"].to_numpy(dtype=float), rules, widened
    )
    found: dict[int, list[tuple[Cell, Effect]]] = {1: [], 2: []}
    mixed: list[str] = []
    for term in asked:
        of_term = []
        for index in itertools.product(*(range(1, len(grid.levels[key])) for key in term)):
            at = dict(zip(term, index, strict=True))
            effect = _effect(grid, fit, at)
            if effect is None:
                words = name(term, grid.named(at))
                mixed.append(words)
            else:
                of_term.append((at, effect))
        found[len(term)] += of_term
    if mixed:
        left_out.append(f"{shortlist(mixed, LISTED)} cannot be told from other effects")
    kinds = sum(map(bool, found.values()))
    corrected = {
        order: [(at, _corrected(effect, fit.degrees, kinds * len(all_))) for at, effect in all_]
        for order, all_ in found.items()
    }
    crossing = [at for at, effect in corrected[2] if effect.is_conclusive]
    main = [
        replace(effect, depends=tuple(_dependences(grid, fit, at, crossing)))
        for at, effect in corrected[1]
    ]
    return Factorial(
        factors=tuple(factors),
        effects=(*main, *(effect for _, effect in corrected[2])),
        left_out=tuple(left_out),
        residual_sd=fit.residual_sd,
        degrees=fit.degrees,
    )


def _effect(grid: CellGrid, fit: LeastSquares, at: Cell) -> Effect | None:
    """Return the effect, not yet corrected; None if the runs do not determine it."""
    others = grid.others(at)
    if not len(others) and len(grid.settings.columns) > len(at):
        return None
    found = fit.contrast(at, others)
    if found is None:
        return None
    where = {
        str(key): tuple(grid.levels[str(key)][i] for i in sorted(set(others[key])))
        for key in others
        if others[key].nunique() < len(grid.levels[str(key)])
    }
    first = tuple(grid.levels[key][0] for key in at)
    value, se = found
    estimate = Estimate(value, math.nan, math.nan, fit.runs)
    return Effect(tuple(at), grid.named(at), first, estimate, math.nan, se, LEVEL, where)


def _corrected(effect: Effect, degrees: int, effects: int) -> Effect:
    """Correct p and interval of an effect for this number of effects (Bonferroni)."""
    value, se, level = effect.estimate.value, effect.se, LEVEL / effects
    if math.isnan(se):
        return effect
    half = -float(stdtrit(degrees, level / 2)) * se
    p = 2 * float(stdtr(degrees, -abs(value) / se)) if se else float(not value)
    estimate = Estimate(value, value - half, value + half, effect.estimate.n)
    return replace(effect, estimate=estimate, p=min(1.0, effects * p), level=level)


def _dependences(
    grid: CellGrid, fit: LeastSquares, at: Cell, crossing: Sequence[Cell]
) -> Iterator[Dependence]:
    """Yield the factors between whose levels the main effect changes sign or fades."""
    [key] = at
    for cell in crossing:
        if cell.get(key) != at[key]:
            continue
        [other] = set(cell) - set(at)
        values = []
        for index in (0, cell[other]):
            others = grid.others(at)
            found = fit.contrast(at, others[others[other] == index])
            values.append(math.nan if found is None else found[0])
        small, large = sorted(values, key=abs)
        if small * large < 0 or abs(small) < FADES * abs(large):
            levels = grid.levels[other][0], grid.levels[other][cell[other]]
            yield Dependence(other, levels, (values[0], values[1]))


def label(effect: Effect) -> str:
    """Return the effect's name in a figure: ``mp_silu (silu)``, ``conditioning = rotation``, for an
    interaction ``cos × rotation``; ``fwn × silu, wn`` if it holds only with ``wn``."""
    cells = list(zip(effect.factors, effect.levels, strict=True))
    if effect.is_interaction:
        words = " × ".join(itertools.starmap(code, cells))
    else:
        [(factor, level)] = cells
        last = factor.rpartition(".")[2]
        words = f"{last} ({code(factor, level)})" if level is True else f"{last} = {level}"
    where = [" or ".join(code(factor, x) for x in found) for factor, found in effect.where.items()]
    return ", ".join([words, *where])


def code(factor: str, level: Any) -> str:
    """Return the short name of a switch that is on or off; for other factors the level."""
    if not isinstance(level, bool):
        return str(level)
    short = code_of(factor.rpartition(".")[2])
    return short if level else f"no {short}"


def name(factors: Sequence[str], levels: Sequence[Any]) -> str:
    """Return a cell's name: ``mp_silu × model.conditioning rotation``; off: ``no mp_silu``."""
    return " × ".join(
        factor if level is True else f"no {factor}" if level is False else f"{factor} {level}"
        for factor, level in zip(factors, levels, strict=True)
    )
