"""Racing: which points of a tuning survive.

Each variant's points run one seed after another. After each seed the worse half is dropped
(successive halving: Jamieson and Talwalkar, *Non-stochastic best arm identification and
hyperparameter optimization*, AISTATS 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Point = TypeVar("Point")


def survivors(
    points: Mapping[Point, Sequence[float]], seeds: int, lower_is_better: bool = True
) -> list[Point]:
    """The points still in the race after ``seeds`` seeds of tuning, the best first.

    Args:
        points: point → its values by seed in their order, NaN for a failed run. A point that was
            dropped has fewer values.
    Returns:
        All points before the first seed. After each seed, the better half (rounded up) of the
        points in the race, by the mean of their values so far. A point that failed is last. Of
        equals the earlier wins.
    """
    alive = list(points)
    sign = 1 if lower_is_better else -1
    for seed in range(1, seeds + 1):
        means = {point: _mean(points[point][:seed], sign) for point in alive}
        alive = sorted(alive, key=means.__getitem__)[: -(-len(alive) // 2)]
    return alive


def best(points: Mapping[Point, Sequence[float]], lower_is_better: bool = True) -> Point | None:
    """The point with the best mean among those with the most seeds; None where all failed."""
    most = max(map(len, points.values()), default=0)
    sign = 1 if lower_is_better else -1
    means = {p: _mean(found, sign) for p, found in points.items() if found and len(found) == most}
    means = {point: mean for point, mean in means.items() if mean < np.inf}
    return min(means, key=means.__getitem__, default=None)


def _mean(values: Sequence[float], sign: int) -> float:
    """The mean as a cost; infinite where a run failed."""
    mean = sign * float(np.mean(values))
    return np.inf if np.isnan(mean) else mean
