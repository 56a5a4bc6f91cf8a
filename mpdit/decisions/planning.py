"""Planning: how many more seeds would settle an open comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.special import chdtri, ndtr, ndtri, stdtrit

from mpdit.decisions.family import LEAST_SEEDS, Decision, Family, Rules, failures_against

POWER = 0.8
"""The probability that the planned seeds give a verdict."""
MOST = 10_000
"""The largest number of seeds that a plan proposes."""
DRAWS = 400


def needed(decision: Decision, rules: Rules) -> int | None:
    """The seeds in all, of variant and baseline each, that settle a comparison with `POWER`.

    Returns:
        None where no number up to `MOST` does, where there is no interval yet, and where failed
        runs contradict the verdict of the values: more finished seeds do not undo failures.
    """
    if not math.isfinite(decision.se):
        return None
    seeds = min(decision.seeds, decision.baseline_seeds)
    value = rules.inner(decision.effect)
    is_better = (value < 0) == rules.lower_is_better
    if failures_against("better" if is_better else "worse", decision):
        return None
    return seeds_needed(
        value, decision.se, decision.degrees, decision.level, seeds, rules.inner_margin
    )


def seeds_needed(
    estimate: float, se: float, degrees: float, level: float, seeds: int, margin: float
) -> int | None:
    """The number of seeds in all with which an estimate's interval gives a verdict with `POWER`.

    The probability is averaged over the unknown true effect (normal around the estimate) and
    standard deviation (inverse chi square). Existing seeds are counted too.

    Args:
        estimate, se, degrees: from ``seeds`` seeds, on the inner scale.
        level: two-sided, corrected for all comparisons and looks.
    """
    z, scale = _draws(degrees)
    sd = se * seeds**0.5 * scale  # of one seed's difference
    truth = estimate + z * sd / seeds**0.5

    def chance(count: int) -> float:
        """The probability that an interval from ``count`` seeds in all gives a verdict."""
        share = seeds / count
        mean = share * estimate + (1 - share) * truth
        spread = sd * (count - seeds) ** 0.5 / count
        # each seed adds a degree to both variants
        half = -stdtrit(degrees + 2 * (count - seeds), level / 2) * sd / count**0.5
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = 1 - ndtr((half - mean) / spread) + ndtr((-half - mean) / spread)
            room = margin - half
            inside = ndtr((room - mean) / spread) - ndtr((-room - mean) / spread)
        return float(np.maximum(apart, np.where(room > 0, inside, 0)).mean())

    low, high = max(seeds + 1, LEAST_SEEDS), MOST
    if chance(high) < POWER:
        return None
    while low < high:  # the chance rises with the seeds
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= POWER else (middle + 1, high)
    return low


@cache
def _draws(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread draws of a standard normal, and of the true over the estimated deviation."""
    index = np.arange(DRAWS) + 0.5
    even, golden = index / DRAWS, (index * (5**0.5 - 1) / 2) % 1
    return ndtri(even), (degrees / chdtri(degrees, golden)) ** 0.5


def expected_seeds(family: Family) -> dict[str, float]:
    """The expected final number of seeds of each variant of an open comparison.

    A comparison with an estimate is expected to end at the first look with the number of seeds
    that `needed` gives. One without an estimate ends at each look with probability one half.
    """
    looks = family.rules.looks
    found = {}
    for variant, wanted in family.wanted.items():
        chances = [_staying(family.decisions[p], family.rules) for p in family.open if variant in p]
        expected, coming = float(wanted), looks.index(wanted)
        for index in range(coming + 1, len(looks)):
            ended = [1 - chance(index - 1, index - coming) for chance in chances]
            expected += (looks[index] - looks[index - 1]) * (1 - math.prod(ended))
        found[variant] = expected
    return found


def _staying(decision: Decision, rules: Rules) -> Callable[[int, int], float]:
    """A function: the index of a look, how many looks from now it is → the probability that the
    comparison is still open after it."""
    if not math.isfinite(decision.se):
        return lambda _, looks: 0.5**looks
    seeds = needed(decision, rules)
    return lambda index, _: float(seeds is None or rules.looks[index] < seeds)
