"""Factorial grids: what each factor does over all settings of the others, and what pairs do.

Ordinary least squares on effect-coded factors, with the seeds as blocks (statsmodels). Of a factor
with several levels each is held against the first, so that an effect is always one number:

- main effect of level a: the mean at a less that at the first level, over the other factors;
- interaction of a and b: half of what a does at b less half of what a does at b's first level.

These are the effects of Box, Hunter and Hunter (*Statistics for Experimenters*) for two levels.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
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
        levels: of each factor, the one that is held against the factor's first.
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

    @property
    def main(self) -> list[Effect]:
        """The main effects.

        Raises:
            NothingToShow: where none can be told from the interactions.
        """
        return self._of(1, "no main effect can be told from the interactions")

    @property
    def interactions(self) -> list[Effect]:
        """The interactions of two factors.

        Raises:
            NothingToShow: where none can be estimated.
        """
        return self._of(2, "no two axes of the grid have all their combinations")

    def _of(self, order: int, nothing: str) -> list[Effect]:
        found = [effect for effect in self.effects if len(effect.factors) == order]
        if not found:
            raise NothingToShow(nothing)
        return found


def factorial(runs: pd.DataFrame, factors: Sequence[str]) -> Factorial:
    """Fit main effects and two-way interactions.

    Args:
        runs: one row a run: ``value``, ``seed``, and a column a factor. A factor's levels are
            in the order of its categories, or else of their first appearance.
    """
    # these take most of a second to import
    from statsmodels.api import OLS
    from statsmodels.tools.sm_exceptions import SingularMatrixWarning

    codes = {factor: _Codes.of(runs[factor]) for factor in factors}
    pairs = list(itertools.combinations(factors, 2))
    empty = {pair: cell for pair in pairs if (cell := _empty_cell(codes, *pair))}
    terms = [(factor,) for factor in factors] + [pair for pair in pairs if pair not in empty]
    blocks = [np.ones((len(runs), 1)), _Codes.of(runs["seed"]).columns]
    columns = [_columns([codes[factor] for factor in term]) for term in terms]
    design = np.hstack([*blocks, *columns])
    with warnings.catch_warnings():
        # not all parameters need be unique: what is told of them is looked at below
        warnings.simplefilter("ignore", SingularMatrixWarning)
        fit = OLS(runs["value"].to_numpy(dtype=float), design).fit()
    spanned = np.linalg.pinv(design) @ design
    left_out = [
        f"{' × '.join(pair)}: no run has {name(pair, cell)}" for pair, cell in empty.items()
    ]
    effects = []
    start = sum(block.shape[1] for block in blocks)
    for term, own in zip(terms, columns, strict=True):
        coded = [codes[factor] for factor in term]
        levels = itertools.product(*(code.levels[1:] for code in coded))
        for level, contrast in zip(levels, _contrasts(coded), strict=True):
            whole = np.zeros(design.shape[1])
            whole[start : start + own.shape[1]] = contrast
            if np.allclose(whole @ spanned, whole, atol=1e-8):
                effects.append(_effect(fit, whole, term, level))
            else:
                left_out.append(f"{name(term, level)} cannot be told from other effects")
        start += own.shape[1]
    main = [effect for effect in effects if len(effect.factors) == 1]
    interactions = [effect for effect in effects if len(effect.factors) == 2]
    degrees = int(fit.df_resid)
    return Factorial(
        factors=tuple(factors),
        effects=(*_corrected(main), *_corrected(interactions)),
        left_out=tuple(left_out),
        residual_sd=float(fit.mse_resid**0.5) if degrees else math.nan,
        degrees=degrees,
    )


@dataclass(frozen=True)
class _Codes:
    """A factor in effect coding: a column for each level but the first, which is −1 in all.

    Attributes:
        index: each run's level, by number.
        columns: runs × (levels − 1).
        contrasts: (levels − 1) × (levels − 1): what of the columns' coefficients is each level's
            effect against the first.
    """

    levels: tuple[Any, ...]
    index: np.ndarray
    columns: np.ndarray
    contrasts: np.ndarray

    @classmethod
    def of(cls, values: pd.Series[Any]) -> _Codes:
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.cat.remove_unused_categories()
            index, levels = values.cat.codes.to_numpy(), list(values.cat.categories)
        else:
            index, found = pd.factorize(values)
            levels = list(found)
        coding = np.vstack([-np.ones(len(levels) - 1), np.eye(len(levels) - 1)])
        return cls(tuple(levels), index, coding[index], coding[1:] - coding[0])


def _columns(codes: Sequence[_Codes]) -> np.ndarray:
    """Of a factor, or of an interaction: all products of its factors' columns, run by run."""
    first, *others = (code.columns for code in codes)
    for other in others:
        first = np.einsum("ni,nj->nij", first, other).reshape(len(first), -1)
    return first


def _contrasts(codes: Sequence[_Codes]) -> np.ndarray:
    first, *others = (code.contrasts for code in codes)
    for other in others:
        first = np.kron(first, other) / 2
    return first


def _empty_cell(codes: dict[str, _Codes], a: str, b: str) -> tuple[Any, Any] | None:
    """A combination of two factors' levels that no run has."""
    there = set(zip(codes[a].index, codes[b].index, strict=True))
    for i, j in itertools.product(range(len(codes[a].levels)), range(len(codes[b].levels))):
        if (i, j) not in there:
            return codes[a].levels[i], codes[b].levels[j]
    return None


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
