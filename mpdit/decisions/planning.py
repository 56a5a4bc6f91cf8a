"""Planning: how many more seeds would settle an open comparison."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.special import chdtri, ndtr, ndtri, stdtrit

from mpdit.decisions.family import LEAST_SEEDS, Decision, Rules

POWER = 0.8
"""The chance that a plan keeps its promise."""
MOST = 10_000
"""Seeds beyond which no number is told."""
DRAWS = 400


def seeds_needed(decision: Decision, rules: Rules) -> int | None:
    """How many seeds in all, of variant and baseline each, settle the comparison with `POWER`.

    The chance is averaged over what is not known yet: the true effect (normal around the estimate)
    and the standard deviation (inverse chi square). The corrected level of the decision is counted
    in, and the runs that exist are counted among the seeds.

    Returns:
        None where no number up to `MOST` does, and where there is no interval yet.
    """
    if not math.isfinite(decision.se) or not decision.effect > -math.inf:
        return None
    seeds = min(decision.seeds, decision.baseline_seeds)
    z, scale = _draws(decision.degrees)
    sd = decision.se * seeds**0.5 * scale  # of one seed's difference
    estimate = rules.inner(decision.effect)
    truth = estimate + z * sd / seeds**0.5
    counts = np.unique(np.geomspace(max(seeds + 1, LEAST_SEEDS), MOST, 200).astype(int))[:, None]
    share = seeds / counts
    mean = share * estimate + (1 - share) * truth
    spread = sd * (counts - seeds) ** 0.5 / counts
    # each seed adds a degree to both variants
    degrees = decision.degrees + 2 * (counts - seeds)
    half = -stdtrit(degrees, decision.level / 2) * sd / counts**0.5
    chance = 1 - ndtr((half - mean) / spread) + ndtr((-half - mean) / spread)
    room = rules.inner_margin - half
    inside = ndtr((room - mean) / spread) - ndtr((-room - mean) / spread)
    chance = np.maximum(chance, np.where(room > 0, inside, 0))
    enough = np.flatnonzero(chance.mean(axis=1) >= POWER)
    return int(counts[enough[0], 0]) if len(enough) else None


@cache
def _draws(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread draws of a standard normal, and of the true over the estimated deviation."""
    index = np.arange(DRAWS) + 0.5
    even, golden = index / DRAWS, (index * (5**0.5 - 1) / 2) % 1
    return ndtri(even), (degrees / chdtri(degrees, golden)) ** 0.5
