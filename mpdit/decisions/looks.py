"""Looks: repeated decisions on a study's results that still err in only 5 % of studies.

Pocock's boundary (*Group sequential methods in the design and analysis of clinical trials*,
Biometrika 64, 1977): the same nominal level at every look. It was calibrated for known variances;
its levels serve for t statistics as well when applied to their p-values (Jennison and Turnbull,
*Group Sequential Methods*, 2000, sections 3.8 and 9.5: repeated confidence intervals).
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

POINTS = 301
"""Points of the grid on which the statistic's density is integrated: the level is accurate to
0.1 %."""


@cache
def nominal_level(looks: tuple[int, ...], level: float) -> float:
    """The two-sided level for each of several looks, so that all together err at ``level``.

    Args:
        looks: the number of seeds at each look, rising.
    """
    if len(looks) < 2:
        return level
    found = brentq(lambda z: crossing(looks, z) - level, *(-ndtri(level / k) for k in (1, 40)))
    return float(2 * ndtr(-found))


def crossing(looks: tuple[int, ...], bound: float) -> float:
    """The probability that a standardized mean leaves ±``bound`` at one look at least.

    The density of the sum is carried from look to look (Armitage, McPherson and Rowe, *Repeated
    significance tests on accumulating data*, J. R. Stat. Soc. A 132, 1969).
    """
    x = np.linspace(-bound, bound, POINTS)
    weights = np.full(POINTS, x[1] - x[0])
    weights[[0, -1]] /= 2
    density = np.exp(-(x**2) / 2) / (2 * np.pi) ** 0.5
    sums, left = x * looks[0] ** 0.5, 1.0
    for before, now in pairwise(looks):
        # of z after the look, given the sum before it
        mean, sd = sums / now**0.5, ((now - before) / now) ** 0.5
        z = (x[:, None] - mean) / sd
        density = np.exp(-(z**2) / 2) / (sd * (2 * np.pi) ** 0.5) @ (weights * density)
        sums = x * now**0.5
    left = float(weights @ density)
    return 1 - left
