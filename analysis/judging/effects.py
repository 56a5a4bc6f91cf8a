"""Factorial grids: what each factor does over the settings of the others that exist, and pairs.

Ordinary least squares with the seeds as blocks (statsmodels), of main effects and two-way
interactions, on the scale of `Rules`. Each level of a factor is compared with the factor's first:

- main effect of level a: the mean at a less that at the first level, over the other factors;
- interaction of a and b: half of what a does at b less half of what it does at b's first level.

These are the effects of Box, Hunter and Hunter (*Statistics for Experimenters*) for two levels.
Means are over settings of the other factors that the grid has with both levels: an exclusion gives
no weight to cells that do not exist, and `Effect.where` names what an effect is conditional on.
p and intervals are corrected for all effects of one kind, as `mpdit.decisions.family` does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from analysis.judging.statistics import Estimate
from analysis.study import NothingToShow
from mpdit.decisions.family import LEVEL, Rules

FADES = 1 / 3
"""An effect depends on another factor where at one of that factor's levels it is of the other sign,
or smaller than this share of what it is at the other level."""


@dataclass(frozen=True)
class Dependence:
    """What an effect is at the first and at another level of a factor that it interacts with."""

    factor: str
    levels: tuple[Any, Any]
    effects: tuple[float, float]


@dataclass(frozen=True)
class Effect:
    """One main effect (one factor) or two-way interaction (two).

    Attributes:
        levels: of each factor, the one that is compared with the factor's first.
        first: of each factor, the first level.
        estimate: on the inner scale of `Rules`; its n is the number of runs that the fit had. The
            interval is simultaneous for all main effects, or for all interactions.
        p: corrected likewise: below 0.05 where the interval excludes zero. NaN where no degree of
            freedom is left.
        se, level: the estimate's standard error, and the two-sided level of its interval.
        where: of other factors, the levels that the effect is of, where these are not all.
        depends: the interactions that cross it.
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
    def is_conclusive(self) -> bool:
        """Whether it differs from zero among all effects of its kind."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Factorial:
    """The effects of a factorial grid.

    Attributes:
        factors: those that were asked for.
        effects: main effects, then interactions.
        left_out: in words, the effects that cannot be estimated.
        residual_sd: standard deviation within a seed, with ``degrees`` of freedom.
    """

    factors: tuple[str, ...]
    effects: tuple[Effect, ...]
    left_out: tuple[str, ...]
    residual_sd: float
    degrees: int

    def of(self, order: int) -> list[Effect]:
        """The main effects (1), or the interactions of two factors (2).

        Raises:
            NothingToShow: where none can be estimated.
        """
        found = [effect for effect in self.effects if len(effect.factors) == order]
        if not found:
            raise NothingToShow(_NOTHING[order])
        return found


_NOTHING = {
    1: "no main effect can be told from the interactions",
    2: "no two axes of the grid have all their combinations",
}

Cell = Mapping[str, int]
"""Factor → the index of its level."""


def factorial(
    runs: pd.DataFrame,
    factors: Sequence[str],
    rules: Rules,
    widened: float = 1.0,
    *,
    only_main: bool = False,
) -> Factorial:
    """Fit main effects and two-way interactions.

    Args:
        runs: one row a run: ``value``, ``seed``, and a column a factor. A factor's levels are
            in the order of its categories, or else of their first appearance.
        widened: a factor on standard errors, where the runs are not independent.
        only_main: whether the runs are a fraction of a grid, made for its main effects alone.
    """
    grid = _Grid.of(runs, factors)
    pairs, left_out = list(itertools.combinations(factors, 2)), []
    if only_main:
        pairs = []
    for a, b in list(pairs):
        if len(empty := np.argwhere(~grid.seen[a, b])):
            pairs.remove((a, b))
            cell = grid.levels[a][empty[0, 0]], grid.levels[b][empty[0, 1]]
            left_out.append(f"{a} × {b}: no run has {name((a, b), cell)}")
    asked = [*((factor,) for factor in factors), *pairs]
    fit = _Fit(grid, [(), ("seed",), *asked], runs["value"].to_numpy(dtype=float), rules, widened)
    found: dict[int, list[tuple[Cell, Effect]]] = {1: [], 2: []}
    for term in asked:
        of_term = []
        for index in itertools.product(*(range(1, len(grid.levels[key])) for key in term)):
            at = dict(zip(term, index, strict=True))
            effect = fit.effect(at)
            if effect is None:
                words = name(term, grid.named(at))
                left_out.append(f"{words} cannot be told from other effects")
            else:
                of_term.append((at, effect))
        found[len(term)] += of_term
    corrected = {
        order: [(at, fit.corrected(effect, len(of_order))) for at, effect in of_order]
        for order, of_order in found.items()
    }
    crossing = [(at, effect) for at, effect in corrected[2] if effect.is_conclusive]
    main = [
        replace(effect, depends=tuple(fit.dependences(at, [other for other, _ in crossing])))
        for at, effect in corrected[1]
    ]
    return Factorial(
        factors=tuple(factors),
        effects=(*main, *(effect for _, effect in corrected[2])),
        left_out=tuple(left_out),
        residual_sd=fit.residual_sd,
        degrees=fit.degrees,
    )


@dataclass(frozen=True)
class _Grid:
    """The cells that exist.

    Attributes:
        levels: factor (and seed) → its levels.
        codes: factor (and seed) → the level of each run.
        settings: one row a combination of levels that exists, a column a factor.
        seen: (factor, factor) → which combinations of their levels exist.
    """

    levels: dict[str, list[Any]]
    codes: dict[str, np.ndarray]
    settings: pd.DataFrame
    seen: dict[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, runs: pd.DataFrame, factors: Sequence[str]) -> _Grid:
        columns = {key: _categorical(runs[key]) for key in ("seed", *factors)}
        levels = {key: list(column.cat.categories) for key, column in columns.items()}
        codes = {key: column.cat.codes.to_numpy() for key, column in columns.items()}
        settings = pd.DataFrame({key: codes[key] for key in factors}).drop_duplicates()
        seen = {}
        for a, b in itertools.permutations(factors, 2):
            table = np.zeros((len(levels[a]), len(levels[b])), dtype=bool)
            table[settings[a], settings[b]] = True
            seen[a, b] = table
        return cls(levels, codes, settings, seen)

    def named(self, at: Cell) -> tuple[Any, ...]:
        return tuple(self.levels[key][index] for key, index in at.items())

    def others(self, at: Cell) -> pd.DataFrame:
        """The settings of the other factors that the grid has with the level and the first."""
        rest = self.settings.drop(columns=list(at)).drop_duplicates()
        for key, index in at.items():
            for other in rest.columns:
                both = self.seen[key, other][index] & self.seen[key, other][0]
                rest = rest[both[rest[other]]]
        return rest


class _Fit:
    """The least-squares fit, and contrasts of it."""

    def __init__(
        self,
        grid: _Grid,
        terms: Sequence[tuple[str, ...]],
        values: np.ndarray,
        rules: Rules,
        widened: float,
    ) -> None:
        from statsmodels.api import OLS  # takes most of a second to import

        self.grid, self.terms, self.widened = grid, terms, widened
        self.ones = {key: np.eye(len(found)) for key, found in grid.levels.items()}
        values = np.log(values) if rules.scale == "ratio" else values
        design = self._columns(grid.codes, len(values))
        # the coefficients are not unique: fit the combinations of them that the runs determine
        _, spread, directions = np.linalg.svd(design, full_matrices=False)
        self.basis = directions[spread > 1e-10 * spread[0]]
        self.fit = OLS(values, design @ self.basis.T).fit()
        self.degrees = int(self.fit.df_resid)
        self.residual_sd = float(self.fit.mse_resid**0.5) if self.degrees else math.nan

    def _columns(self, codes: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """A column for each combination of levels of each term's factors: 1 where a row has it."""
        found = []
        for term in self.terms:
            columns = np.ones((rows, 1))
            for key in term:
                # a setting has no seed: it cancels in every contrast
                no_seed = np.zeros((rows, len(self.ones[key])))
                of_key = self.ones[key][codes[key]] if key in codes else no_seed
                columns = np.einsum("ni,nj->nij", columns, of_key).reshape(rows, -1)
            found.append(columns)
        return np.hstack(found)

    def _mean(self, at: Cell, others: pd.DataFrame) -> np.ndarray:
        """The mean row of the model at a cell, over settings of the other factors."""
        rows = max(1, len(others))
        codes = {str(key): others[key].to_numpy() for key in others}
        codes |= {key: np.full(rows, index) for key, index in at.items()}
        mean: np.ndarray = self._columns(codes, rows).mean(axis=0)
        return mean

    def _contrast(self, at: Cell, others: pd.DataFrame) -> np.ndarray:
        """Its level less the first over ``others``; of two factors half the difference of these."""
        total = 0.0
        for firsts in itertools.product((False, True), repeat=len(at)):
            cell = {k: 0 if f else index for (k, index), f in zip(at.items(), firsts, strict=True)}
            total = total + (-1) ** sum(firsts) * self._mean(cell, others)
        return np.asarray(total) / len(at)

    def _value(self, contrast: np.ndarray) -> np.ndarray | None:
        """The contrast of what was fitted; None where the runs do not determine it."""
        determined: np.ndarray = contrast @ self.basis.T
        return determined if np.allclose(determined @ self.basis, contrast, atol=1e-8) else None

    def effect(self, at: Cell) -> Effect | None:
        """The effect, not yet corrected; None where the runs do not determine it."""
        others = self.grid.others(at)
        if not len(others) and len(self.grid.settings.columns) > len(at):
            return None
        contrast = self._value(self._contrast(at, others))
        if contrast is None:
            return None
        value, n = float(contrast @ self.fit.params), int(self.fit.nobs)
        se = math.nan
        if self.degrees:
            se = self.widened * float(self.fit.t_test(contrast).sd.item())
        where = {
            str(key): tuple(self.grid.levels[str(key)][i] for i in sorted(set(others[key])))
            for key in others
            if others[key].nunique() < len(self.grid.levels[str(key)])
        }
        first = tuple(self.grid.levels[key][0] for key in at)
        estimate = Estimate(value, math.nan, math.nan, n)
        return Effect(tuple(at), self.grid.named(at), first, estimate, math.nan, se, LEVEL, where)

    def corrected(self, effect: Effect, effects: int) -> Effect:
        """The effect with p and interval corrected for so many effects (Bonferroni)."""
        value, se, level = effect.estimate.value, effect.se, LEVEL / effects
        if math.isnan(se):
            return effect
        half = -float(stdtrit(self.degrees, level / 2)) * se
        p = 2 * float(stdtr(self.degrees, -abs(value) / se)) if se else float(not value)
        estimate = Estimate(value, value - half, value + half, effect.estimate.n)
        return replace(effect, estimate=estimate, p=min(1.0, effects * p), level=level)

    def dependences(self, at: Cell, crossing: Sequence[Cell]) -> list[Dependence]:
        """The interactions at whose two levels the main effect differs in sign, or fades."""
        found = []
        [key] = at
        for cell in crossing:
            if cell.get(key) != at[key]:
                continue
            [other] = set(cell) - set(at)
            values = []
            for index in (0, cell[other]):
                others = self.grid.others(at)
                contrast = self._value(self._contrast(at, others[others[other] == index]))
                values.append(math.nan if contrast is None else float(contrast @ self.fit.params))
            small, large = sorted(values, key=abs)
            if small * large < 0 or abs(small) < FADES * abs(large):
                levels = self.grid.levels[other][0], self.grid.levels[other][cell[other]]
                found.append(Dependence(other, levels, (values[0], values[1])))
        return found


def _categorical(values: pd.Series[Any]) -> pd.Series[Any]:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.remove_unused_categories()
    return values.astype(pd.CategoricalDtype(list(dict.fromkeys(values))))


def name(factors: Sequence[str], levels: Sequence[Any]) -> str:
    """``mp_silu × model.conditioning rotation``; of a switch ``mp_silu`` or ``no mp_silu``."""
    return " × ".join(
        factor if level is True else f"no {factor}" if level is False else f"{factor} {level}"
        for factor, level in zip(factors, levels, strict=True)
    )
