"""What a handful of seeds allow to say: pure functions, array → :class:`Estimate`.

All intervals are two-sided Student t intervals; one seed has none (NaN bounds).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, its confidence interval, and the number of seeds (or pairs) behind them."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def includes_zero(self) -> bool:
        """Also when there is no interval: nothing is excluded then."""
        return not (self.low > 0 or self.high < 0)


def mean(values: ArrayLike) -> Estimate:
    """The mean of ``values`` (n): x̄ ± t(n−1) s / √n. No value gives NaN."""
    x = np.asarray(values, dtype=float)
    value = float(x.mean()) if x.size else np.nan
    if x.size < 2:
        return Estimate(value, np.nan, np.nan, x.size)
    half = _t(x.size) * float(x.std(ddof=1)) / x.size**0.5
    return Estimate(value, value - half, value + half, x.size)


def difference(values: ArrayLike, baseline: ArrayLike) -> Estimate:
    """The mean of ``values − baseline``, paired entry by entry (both n)."""
    return mean(np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float))


def relative_change(values: ArrayLike, baseline: ArrayLike) -> Estimate:
    """The mean of ``values`` over that of ``baseline``, less one, as a fraction; paired (both n).

    The interval is Fieller's (*Some problems in interval estimation*, J. R. Stat. Soc. B 16, 1954):
    every ratio ρ that a paired t test of ``values`` against ``ρ · baseline`` does not reject. So
    the baseline's own uncertainty is in it, and it excludes zero just when :func:`difference` does.
    Where the baseline itself cannot be told from zero the interval is unbounded.
    """
    y, x = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    n = x.size
    value = float(y.mean() / x.mean() - 1) if n and x.mean() else np.nan
    if n < 2 or np.isnan(value):
        return Estimate(value, np.nan, np.nan, n)
    (syy, sxy), (_, sxx) = np.cov(y, x) * _t(n) ** 2 / n
    a, b, c = x.mean() ** 2 - sxx, x.mean() * y.mean() - sxy, y.mean() ** 2 - syy
    if a <= 0:
        return Estimate(value, -np.inf, np.inf, n)
    root = np.sqrt(max(0.0, b * b - a * c))
    return Estimate(value, float((b - root) / a - 1), float((b + root) / a - 1), n)


def _t(n: int) -> float:
    """The quantile of Student's t that bounds a two-sided interval from n observations."""
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
