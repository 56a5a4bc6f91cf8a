"""Least squares on the cells of a crossed grid, and contrasts of the fit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mpdit.decisions.family import Rules

Cell = Mapping[str, int]
"""Factor → the index of its level."""


@dataclass(frozen=True)
class CellGrid:
    """The cells that a grid has.

    Attributes:
        levels: factor (or seed) → its levels.
        codes: factor (or seed) → the index of each run's level.
        settings: one row per combination of levels in the grid, one column per factor.
        seen: (factor, factor) → which combinations of their levels exist.
    """

    levels: dict[str, list[Any]]
    codes: dict[str, np.ndarray]
    settings: pd.DataFrame
    seen: dict[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, runs: pd.DataFrame, factors: Sequence[str], is_fraction: bool) -> CellGrid:
        """Make the cells of these runs.

        A fraction for interactions has every pair of levels of the whole grid. Its settings are
        those of the whole grid, because it estimates the whole grid's means.
        """
        columns = {key: _categorical(runs[key]) for key in ("seed", *factors)}
        levels = {key: list(column.cat.categories) for key, column in columns.items()}
        codes = {key: column.cat.codes.to_numpy() for key, column in columns.items()}
        settings = pd.DataFrame({key: codes[key] for key in factors}).drop_duplicates()
        seen = {}
        for a, b in itertools.permutations(factors, 2):
            table = np.zeros((len(levels[a]), len(levels[b])), dtype=bool)
            table[settings[a], settings[b]] = True
            seen[a, b] = table
        if is_fraction:
            sizes = [range(len(levels[key])) for key in factors]
            every = np.array(list(itertools.product(*sizes)))
            for i, j in itertools.combinations(range(len(factors)), 2):
                every = every[seen[factors[i], factors[j]][every[:, i], every[:, j]]]
            settings = pd.DataFrame(every, columns=list(factors))
        return cls(levels, codes, settings, seen)

    def named(self, at: Cell) -> tuple[Any, ...]:
        return tuple(self.levels[key][index] for key, index in at.items())

    def others(self, at: Cell) -> pd.DataFrame:
        """Return the settings of the other factors that exist with both compared levels."""
        rest = self.settings.drop(columns=list(at)).drop_duplicates()
        for key, index in at.items():
            for other in rest.columns:
                both = self.seen[key, other][index] & self.seen[key, other][0]
                rest = rest[both[rest[other]]]
        return rest


class LeastSquares:
    """The least-squares fit, and contrasts of it.

    Args:
        terms: the factors of each effect; the mean has no factor.
        values: the values of the runs, in the order of the grid's codes.
        widened: a factor on standard errors.
    """

    def __init__(
        self,
        grid: CellGrid,
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
        self.runs, self.degrees = len(values), int(self.fit.df_resid)
        self.residual_sd = float(self.fit.mse_resid**0.5) if self.degrees else math.nan

    def _columns(self, codes: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """Return the design: per term, one 0/1 column for each combination of levels."""
        found = []
        for term in self.terms:
            columns = np.ones((rows, 1))
            for key in term:
                of_key = self.ones[key][codes[key]]
                columns = np.einsum("ni,nj->nij", columns, of_key).reshape(rows, -1)
            found.append(columns)
        return np.hstack(found)

    def contrast(self, at: Cell, others: pd.DataFrame) -> tuple[float, float] | None:
        """Return the effect of a cell over ``others`` and its standard error (NaN without a degree
        of freedom); None if the runs do not determine it."""
        asked = self._asked(at, others)
        found: np.ndarray = asked @ self.basis.T
        if not np.allclose(found @ self.basis, asked, atol=1e-8):
            return None
        spread = float(found @ self.fit.normalized_cov_params @ found) ** 0.5
        return float(found @ self.fit.params), self.widened * self.residual_sd * spread

    def _asked(self, at: Cell, others: pd.DataFrame) -> np.ndarray:
        """Return the contrast's weights on the columns of the design.

        For one factor, the level minus the first level; for two factors, half the difference of
        these differences. Terms without all of the factors cancel.
        """
        found = []
        for term in self.terms:
            if not at.keys() <= set(term):
                found.append(np.zeros(math.prod(len(self.ones[key]) for key in term)))
                continue
            columns = np.ones(1)
            for key in term:
                ones = self.ones[key]
                apart = ones[at[key]] - ones[0] if key in at else None
                columns = np.kron(columns, ones[others[key]].mean(0) if apart is None else apart)
            found.append(columns)
        return np.concatenate(found) / len(at)


def _categorical(values: pd.Series[Any]) -> pd.Series[Any]:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.remove_unused_categories()
    return values.astype(pd.CategoricalDtype(list(dict.fromkeys(values))))
