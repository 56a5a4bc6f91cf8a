"""What a handful of seeds allow to say: pure functions, numbers → :class:`Estimate`.

Intervals are two-sided and of 95 %; one seed has none (NaN bounds). Smaller values are better.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ncfdtr, ndtri, stdtr, stdtrit

CONFIDENCE = 0.95
POWER = 0.8
"""The usual chance, of a study that is being planned, to find what it is made to find."""
DRAWS = 9_999

Method = Literal["t", "bootstrap"]


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


def mean(values: ArrayLike, widened: float = 1) -> Estimate:
    """The mean of ``values`` (n): x̄ ± t(n−1) s / √n. No value gives NaN.

    ``widened``: a factor on the interval, of values that are not independent; so everywhere below.
    """
    x = np.asarray(values, dtype=float)
    value = float(x.mean()) if x.size else np.nan
    if x.size < 2:
        return Estimate(value, np.nan, np.nan, x.size)
    half = widened * t_quantile(x.size) * float(x.std(ddof=1)) / x.size**0.5
    return Estimate(value, value - half, value + half, x.size)


def difference(
    values: ArrayLike, baseline: ArrayLike, method: Method = "t", widened: float = 1
) -> Estimate:
    """The mean of ``values − baseline``, paired entry by entry (both n).

    The interval is Student's t's or, by ``bootstrap``, as :func:`bootstrap` has it.
    """
    x = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    return mean(x, widened) if method == "t" else bootstrap(_mean, x)


def relative_change(
    values: ArrayLike,
    baseline: ArrayLike,
    method: Method = "t",
    widened: float = 1,
    non_negative: bool = False,
) -> Estimate:
    """The mean of ``values`` over that of ``baseline``, less one, as a fraction; paired (both n).

    The interval is Fieller's (*Some problems in interval estimation*, J. R. Stat. Soc. B 16, 1954):
    every ratio ρ that a paired t test of ``values`` against ``ρ · baseline`` does not reject. So
    the baseline's own uncertainty is in it. Where the baseline itself cannot be told from zero the
    interval is unbounded; elsewhere it excludes zero just when :func:`difference` does. What is
    ``non_negative`` cannot fall by more than all of it: the interval ends at −1. By ``bootstrap``
    it is as :func:`bootstrap` has it.
    """
    y, x = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if method == "bootstrap":
        return bootstrap(_relative, y, x)
    n = x.size
    value = float(y.mean() / x.mean() - 1) if n and x.mean() else np.nan
    if n < 2 or np.isnan(value):
        return Estimate(value, np.nan, np.nan, n)
    (syy, sxy), (_, sxx) = np.cov(y, x) * (widened * t_quantile(n)) ** 2 / n
    a, b, c = x.mean() ** 2 - sxx, x.mean() * y.mean() - sxy, y.mean() ** 2 - syy
    if a <= 0:
        return Estimate(value, -np.inf, np.inf, n)
    root = np.sqrt(max(0.0, b * b - a * c))
    low, high = float((b - root) / a - 1), float((b + root) / a - 1)
    return Estimate(value, max(low, -1.0) if non_negative else low, high, n)


def bootstrap(statistic: Callable[..., np.ndarray], *samples: ArrayLike) -> Estimate:
    """A statistic of paired samples (each n) with its BCa interval (Efron 1987) from 9,999 draws.

    ``statistic`` takes the samples and ``axis``. The same samples give the same interval. A sample
    of a few is a poor picture of what it was drawn from, and so the interval is too narrow: of the
    mean of normal differences it holds the truth in 74 % for 3 seeds, 83 % for 5, 91 % for 10.
    """
    from scipy import stats  # takes half a second to import

    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    n = arrays[0].size
    value = float(statistic(*arrays, axis=0)) if n else np.nan
    if n < 2:
        return Estimate(value, np.nan, np.nan, n)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            arrays, statistic, paired=True, method="BCa", n_resamples=DRAWS,
            confidence_level=CONFIDENCE, rng=np.random.default_rng(0),
        )  # fmt: skip
    if not np.ptp(found.bootstrap_distribution):
        return Estimate(value, value, value, n)
    low, high = found.confidence_interval
    return Estimate(value, float(low), float(high), n)


def _mean(x: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(x.mean(axis))


def _relative(y: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(y.mean(axis) / x.mean(axis) - 1)


def p_value(values: ArrayLike, baseline: ArrayLike, widened: float = 1) -> float:
    """Of the paired t test that :func:`difference` is the interval of; NaN for one pair."""
    x = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    if x.size < 2:
        return math.nan
    if not np.ptp(x):
        return 0.0 if x[0] else 1.0
    t = abs(float(x.mean())) * x.size**0.5 / (widened * float(x.std(ddof=1)))
    return float(2 * stdtr(x.size - 1, -t))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted so that among all of these the chance of one false finding is what each says.

    Holm, *A simple sequentially rejective multiple test procedure*, Scand. J. Stat. 6, 1979. NaN
    stays NaN, and counts as no test. (That of statsmodels collects garbage with every call.)
    """
    p = np.array(p_values, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    scaled = p[order] * np.arange(len(order), 0, -1)
    p[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return p


def probability_of_improvement(values: ArrayLike, baseline: ArrayLike) -> Estimate:
    """The chance that a run of ``values`` (m) is lower than a run of ``baseline`` (n).

    As Agarwal et al. (*Deep RL at the edge of the statistical precipice*, 2021) have it: the share
    of pairs, ties counted half, which is Mann and Whitney's U over mn. Their bootstrap has no
    width where all pairs agree, as they easily do with few seeds; the interval is Newcombe's
    (*Confidence intervals for an effect size measure based on the Mann–Whitney statistic, part 2*,
    Stat. Med. 25, 2006, method 5). ``n`` is the smaller number of runs.
    """
    x, y = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    m, n = x.size, y.size
    if not m or not n:
        return Estimate(math.nan, math.nan, math.nan, min(m, n))
    pairs = np.sign(y[None, :] - x[:, None])
    value = float((pairs.mean() + 1) / 2)
    z = float(ndtri((1 + CONFIDENCE) / 2))

    def excess(p: float) -> float:
        """(value − p)² over its variance under p, less z²."""
        more = ((m + n) / 2 - 1) * ((1 - p) / (2 - p) + p / (1 + p))
        return (value - p) ** 2 * m * n - z**2 * p * (1 - p) * (1 + more)

    inside = min(max(value, 1e-9), 1 - 1e-9)  # 0 and 1 are roots that bound nothing
    low = brentq(excess, 0, inside) if value else 0.0
    high = brentq(excess, inside, 1) if value < 1 else 1.0
    return Estimate(value, float(low), float(high), min(m, n))


def seeds_needed(difference: float, sd: float, power: float = POWER) -> float:
    """Pairs with which a paired t test finds a true ``difference`` with this chance.

    ``sd`` is the standard deviation of the paired differences. Infinite for no difference;
    NaN where either is not known.
    """
    if math.isnan(difference) or math.isnan(sd):
        return math.nan
    if not difference:
        return math.inf
    if not sd:
        return 2
    effect = abs(difference) / sd
    most = 2
    while _power(effect, most) < power:
        most *= 2
    least = max(2, most // 2)
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if _power(effect, middle) >= power else (middle + 1, most)
    return least


def detectable_difference(sd: float, n: int, power: float = POWER) -> float:
    """The true difference that a paired t test of ``n`` pairs finds with this chance.

    NaN for fewer than two pairs.
    """
    if n < 2 or math.isnan(sd):
        return math.nan
    most = 1.0
    while _power(most, n) < power:
        most *= 2
    return sd * float(brentq(lambda effect: _power(effect, n) - power, 0, most))


def _power(effect: float, n: int) -> float:
    """Of a two-sided paired t test of ``n`` pairs, ``effect`` in standard deviations.

    By the square of t, whose noncentral F holds out longer than the noncentral t.
    """
    return float(1 - ncfdtr(1, n - 1, n * effect**2, t_quantile(n) ** 2))


def t_quantile(n: int) -> float:
    """The quantile of Student's t that bounds a two-sided interval from n observations."""
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
