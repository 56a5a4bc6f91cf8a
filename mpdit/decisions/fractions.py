"""Fractions of a crossed grid: the D-optimal subsets from which its effects can be estimated.

Fedorov's exchange (*Theory of Optimal Experiments*, 1972; Cook and Nachtsheim, Technometrics 22,
1980): rows of the design are exchanged for rows of the grid while the determinant of the
information grows. (pyDOE's ``optimal_design`` expands numbers to polynomials: it knows neither
factors with levels nor a rank that exclusions reduce.) Ties are broken by the grid's order, so that
every machine finds the same subset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

Effects = Literal["main", "two-way"]
STARTS = 8
DEGREES = 3
"""The least residual degrees of freedom of a fraction."""
GAIN = 1e-6
_DIGITS = 9  # beyond these, two exchanges are equally good

Term = tuple[int, ...]
"""The factors of an effect, by index."""


@dataclass(frozen=True)
class Fraction:
    """A subset of a grid's cells.

    Attributes:
        effects: the effects that it can estimate.
        rows: its cells, in the grid's order.
        cells: the number of cells of the grid.
        ratios: effect → its standard error over that from the whole grid, with as many seeds.
        aliases: main effect → (interaction, share): its content of interactions that are assumed
            to be zero, the largest share first. Empty where interactions are estimated.
        missing: interactions that the whole grid cannot estimate either.
    """

    effects: Effects
    rows: tuple[int, ...]
    cells: int
    ratios: dict[Term, float]
    aliases: dict[Term, list[tuple[Term, float]]]
    missing: tuple[Term, ...]


def least(codes: np.ndarray, effects: Effects, seeds: int) -> int:
    """The number of cells of the smallest fraction. ``codes`` as in `fraction`."""
    parameters = int(_Model.of(codes, effects).matrix.shape[1])
    return min(len(codes), max(parameters, -(-(DEGREES + parameters + seeds - 1) // seeds)))


def fraction(codes: np.ndarray, effects: Effects, size: int) -> Fraction:
    """The D-optimal fraction with ``size`` cells.

    Args:
        codes: (cells, factors) the levels of each cell that exists, counted from 0.
        size: at least `least`.
    """
    model = _Model.of(codes, effects)
    rows = _optimal(model.matrix, size)
    chosen = model.matrix[rows]
    inverse, whole = np.linalg.inv(chosen.T @ chosen), np.linalg.inv(model.matrix.T @ model.matrix)
    spread = np.sqrt(np.diag(inverse) / np.diag(whole))
    terms = [term for term in dict.fromkeys(model.terms) if term]
    ratios = {t: float(spread[[found == t for found in model.terms]].mean()) for t in terms}
    both, aliases = _Model.of(codes, "two-way"), {}
    if effects == "main":
        others = [index for index, term in enumerate(both.terms) if len(term) == 2]
        shares = np.abs(inverse @ chosen.T @ both.matrix[rows][:, others])
        for term in terms:
            mine = shares[[found == term for found in model.terms]].max(axis=0)
            of: dict[Term, float] = {}
            for index, share in zip(others, mine.tolist(), strict=True):
                of[both.terms[index]] = max(share, of.get(both.terms[index], 0.0))
            known = [(other, share) for other, share in of.items() if share > 0.05]
            aliases[term] = sorted(known, key=lambda found: -round(found[1], _DIGITS))
    pairs = combinations(range(codes.shape[1]), 2)
    missing = tuple(pair for pair in pairs if pair not in both.terms)
    return Fraction(effects, tuple(sorted(rows)), len(codes), ratios, aliases, missing)


@dataclass(frozen=True)
class _Model:
    """The columns of effects that the whole grid can estimate, and the effect of each."""

    matrix: np.ndarray
    terms: list[Term]

    @classmethod
    def of(cls, codes: np.ndarray, effects: Effects) -> _Model:
        factors = range(codes.shape[1])
        single = [_contrasts(codes[:, factor]) for factor in factors]
        columns, terms = [np.ones((len(codes), 1))], [()]
        wanted: list[Term] = [(factor,) for factor in factors]
        if effects == "two-way":  # not of pairs with a missing cell
            wanted += [pair for pair in combinations(factors, 2) if _is_whole(codes[:, pair])]
        found: list[Term] = [*terms]
        for term in wanted:
            made = single[term[0]]
            for factor in term[1:]:
                made = np.einsum("ni,nj->nij", made, single[factor]).reshape(len(codes), -1)
            columns.append(made)
            found += [term] * made.shape[1]
        matrix = np.hstack(columns)
        kept = _independent(matrix)
        return cls(matrix[:, kept], [found[index] for index in kept])


def _contrasts(codes: np.ndarray) -> np.ndarray:
    """A column for each level but the first (Helmert's): for two levels −1 and 1."""
    levels = int(codes.max()) + 1
    made = np.zeros((levels, levels - 1))
    for level in range(1, levels):
        made[:level, level - 1] = -1
        made[level, level - 1] = level
    made *= np.sqrt(levels / (made**2).sum(axis=0))
    return np.asarray(made[codes])


def _is_whole(codes: np.ndarray) -> bool:
    """Whether all combinations of two factors' levels exist."""
    first, second = codes.max(axis=0) + 1
    return bool(len(np.unique(codes, axis=0)) == first * second)


def _independent(matrix: np.ndarray) -> list[int]:
    """The columns that are not linear combinations of earlier columns."""
    kept: list[int] = []
    basis = np.zeros((len(matrix), 0))
    for index, column in enumerate(matrix.T):
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)  # twice, for rounding
        size = np.linalg.norm(rest)
        if size > 1e-8 * np.linalg.norm(column):
            kept.append(index)
            basis = np.hstack([basis, (rest / size)[:, None]])
    return kept


def _optimal(matrix: np.ndarray, size: int) -> list[int]:
    """The rows of the best design of several starts."""
    best: tuple[float, list[int]] | None = None
    for start in range(STARTS):
        order = np.arange(len(matrix))
        if start:
            order = np.random.default_rng(start).permutation(len(matrix))
        rows = _exchange(matrix, _first(matrix, order, size))
        _, value = np.linalg.slogdet(matrix[rows].T @ matrix[rows])
        if best is None or value > best[0] + GAIN:
            best = float(value), rows
    assert best is not None
    return best[1]


def _first(matrix: np.ndarray, order: np.ndarray, size: int) -> list[int]:
    """Rows from which all effects can be estimated, then the next rows."""
    rows = [int(order[index]) for index in _independent(matrix[order].T)]
    rest = [int(index) for index in order if int(index) not in set(rows)]
    return rows + rest[: size - len(rows)]


def _exchange(matrix: np.ndarray, rows: Sequence[int]) -> list[int]:
    """Exchange rows while the determinant grows."""
    rows = list(rows)
    while True:
        chosen = matrix[rows]
        inverse = np.linalg.inv(chosen.T @ chosen)
        mixed = chosen @ inverse @ matrix.T
        own = np.einsum("ij,jk,ik->i", chosen, inverse, chosen)
        every = np.einsum("ij,jk,ik->i", matrix, inverse, matrix)
        factor = (1 - own)[:, None] * (1 + every) + mixed**2
        factor[:, rows] = 0
        index = int(np.round(factor, _DIGITS).argmax())
        out, into = divmod(index, len(matrix))
        if factor[out, into] < 1 + GAIN:
            return rows
        rows[out] = into
