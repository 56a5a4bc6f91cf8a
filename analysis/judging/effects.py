"""Factorial grids: what each factor does over all settings of the others, and what pairs do.

Ordinary least squares with the seeds as blocks (statsmodels). Each level of a factor is compared
with the factor's first, so that an effect is always one number:

- main effect of level a: the mean at a less that at the first level, over the other factors;
- interaction of a and b: half of what a does at b less half of what it does at b's first level.

These are the effects of Box, Hunter and Hunter (*Statistics for Experimenters*) for two levels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.judging.statistics import CONFIDENCE, Estimate, holm
from analysis.study import NothingToShow


@dataclass(frozen=True)
class Effect:
    """One main effect (one factor) or two-way interaction (two).

    Attributes:
        levels: of each factor, the one that is compared with the factor's first.
        estimate: in the value's unit; its n is the number of runs that the fit had.
        p: of the t test that it is zero; NaN where no degree of freedom is left.
        p_holm: corrected for all main effects, or for all interactions (Holm).
    """

    factors: tuple[str, ...]
    levels: tuple[Any, ...]
    estimate: Estimate
    p: float
    p_holm: float = math.nan

    @property
    def is_conclusive(self) -> bool:
        """Whether it differs from zero among all effects of its kind (Holm)."""
        return self.p_holm < 1 - CONFIDENCE


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


def factorial(runs: pd.DataFrame, factors: Sequence[str]) -> Factorial:
    """Fit main effects and two-way interactions.

    Args:
        runs: one row a run: ``value``, ``seed``, and a column a factor. A factor's levels are
            in the order of its categories, or else of their first appearance.
    """
    from statsmodels.api import OLS  # takes most of a second to import

    values = {key: _categorical(runs[key]) for key in ("seed", *factors)}
    levels = {key: list(column.cat.categories) for key, column in values.items()}
    ones = {key: np.eye(len(levels[key]))[column.cat.codes] for key, column in values.items()}
    pairs = list(itertools.combinations(factors, 2))
    left_out = []
    for a, b in list(pairs):
        if len(empty := np.argwhere(ones[a].T @ ones[b] == 0)):
            pairs.remove((a, b))
            cell = levels[a][empty[0, 0]], levels[b][empty[0, 1]]
            left_out.append(f"{a} × {b}: no run has {name((a, b), cell)}")
    asked = [*((factor,) for factor in factors), *pairs]
    terms = [(), ("seed",), *asked]
    design = np.hstack([_columns([ones[key] for key in term], len(runs)) for term in terms])
    # the coefficients are not unique: fit the combinations of them that the runs determine
    _, spread, directions = np.linalg.svd(design, full_matrices=False)
    basis = directions[spread > 1e-10 * spread[0]]
    fit = OLS(runs["value"].to_numpy(dtype=float), design @ basis.T).fit()
    sizes = {key: len(found) for key, found in levels.items()}
    effects = []
    for term in asked:
        for index in itertools.product(*(range(1, sizes[key]) for key in term)):
            at = dict(zip(term, index, strict=True))
            level = tuple(levels[key][i] for key, i in at.items())
            contrast = np.concatenate([_contrast(other, at, sizes) for other in terms])
            determined = contrast @ basis.T
            if np.allclose(determined @ basis, contrast, atol=1e-8):
                effects.append(_effect(fit, determined, term, level))
            else:
                left_out.append(f"{name(term, level)} cannot be told from other effects")
    degrees = int(fit.df_resid)
    return Factorial(
        factors=tuple(factors),
        effects=tuple(
            corrected
            for order in (1, 2)
            for corrected in _corrected([e for e in effects if len(e.factors) == order])
        ),
        left_out=tuple(left_out),
        residual_sd=float(fit.mse_resid**0.5) if degrees else math.nan,
        degrees=degrees,
    )


def _categorical(values: pd.Series[Any]) -> pd.Series[Any]:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.remove_unused_categories()
    return values.astype(pd.CategoricalDtype(list(dict.fromkeys(values))))


def _columns(ones: list[np.ndarray], runs: int) -> np.ndarray:
    """A column for each combination of levels of a term's factors: 1 for the runs that have it."""
    columns = np.ones((runs, 1))
    for of_factor in ones:
        columns = np.einsum("ni,nj->nij", columns, of_factor).reshape(runs, -1)
    return columns


def _contrast(term: tuple[str, ...], at: Mapping[str, int], sizes: Mapping[str, int]) -> np.ndarray:
    """The weights of a term's coefficients in an effect: its levels less the first ones, averaged
    over the levels of other factors, and halved for an interaction."""
    if not set(at) <= set(term):
        return np.zeros(math.prod(sizes[key] for key in term))
    weights = np.ones(1) / len(at)
    for key in term:
        size, one = sizes[key], np.eye(sizes[key])
        weights = np.kron(weights, one[at[key]] - one[0] if key in at else np.full(size, 1 / size))
    return weights


def _effect(fit: Any, contrast: np.ndarray, factors: tuple[str, ...], levels: Any) -> Effect:
    value = float(contrast @ fit.params)
    n = int(fit.nobs)
    if not fit.df_resid:
        return Effect(factors, levels, Estimate(value, math.nan, math.nan, n), math.nan)
    test = fit.t_test(contrast)
    [[low, high]] = test.conf_int(alpha=1 - CONFIDENCE)
    estimate = Estimate(value, float(low), float(high), n)
    return Effect(factors, levels, estimate, float(np.squeeze(test.pvalue)))


def _corrected(effects: list[Effect]) -> list[Effect]:
    adjusted = holm([effect.p for effect in effects])
    return [replace(e, p_holm=float(p)) for e, p in zip(effects, adjusted, strict=True)]


def name(factors: Sequence[str], levels: Sequence[Any]) -> str:
    """``mp_silu × model.conditioning rotation``: a switch goes without its level."""
    return " × ".join(
        factor if level is True else f"{factor} {level}"
        for factor, level in zip(factors, levels, strict=True)
    )
