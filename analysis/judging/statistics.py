"""Statistics of few seeds: pure functions, numbers → :class:`Estimate`.

Intervals are two-sided 95 % intervals. One seed has no interval (NaN bounds).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, its confidence interval, and the number of seeds (or pairs) used."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def includes_zero(self) -> bool:
        """Whether the interval includes zero; true without an interval."""
        return not (self.low > 0 or self.high < 0)


def mean(values: ArrayLike, widened: float = 1) -> Estimate:
    """Return the mean of ``values`` (n): x̄ ± t(n−1) s / √n. No value gives NaN.

    ``widened`` multiplies the interval, for values that are not independent.
    """
    x = np.asarray(values, dtype=float)
    value = float(x.mean()) if x.size else np.nan
    if x.size < 2:
        return Estimate(value, np.nan, np.nan, x.size)
    half = widened * t_quantile(x.size) * float(x.std(ddof=1)) / x.size**0.5
    return Estimate(value, value - half, value + half, x.size)


def relative_change(values: ArrayLike, baseline: ArrayLike) -> Estimate:
    """Return the mean of ``values`` over that of ``baseline``, minus one; paired (both n).

    The interval is Fieller's (*Some problems in interval estimation*, J. R. Stat. Soc. B 16, 1954):
    every ratio ρ that a paired t test of ``values`` against ``ρ · baseline`` does not reject. It
    includes the baseline's own uncertainty. It is unbounded if the baseline may be zero.
    """
    y, x = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    n = x.size
    value = float(y.mean() / x.mean() - 1) if n and x.mean() else np.nan
    if n < 2 or np.isnan(value):
        return Estimate(value, np.nan, np.nan, n)
    (syy, sxy), (_, sxx) = np.cov(y, x) * t_quantile(n) ** 2 / n
    a, b, c = x.mean() ** 2 - sxx, x.mean() * y.mean() - sxy, y.mean() ** 2 - syy
    if a <= 0:
        return Estimate(value, -np.inf, np.inf, n)
    root = np.sqrt(max(0.0, b * b - a * c))
    low, high = float((b - root) / a - 1), float((b + root) / a - 1)
    return Estimate(value, low, high, n)


def t_quantile(n: float) -> float:
    """Return the quantile of Student's t that bounds a two-sided interval of n observations."""
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
