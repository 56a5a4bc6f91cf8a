"""Two variants' distances side by side: the difference, paired by seed, as all tables have it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.judging import statistics, tuning
from analysis.judging.distances import kind
from analysis.judging.statistics import Estimate


@dataclass(frozen=True)
class Difference:
    """A variant's distance less another's.

    Attributes:
        absolute, relative: with 95 % intervals, widened where a variant was tuned.
        p: of the paired t test, which rejects exactly where ``absolute`` excludes zero.
        p_holm: corrected for all comparisons made together.
    """

    absolute: Estimate
    relative: Estimate
    p: float
    p_holm: float

    @property
    def is_conclusive(self) -> bool:
        """Whether zero is excluded, and among all comparisons too (Holm)."""
        return not self.absolute.includes_zero and self.p_holm < 1 - statistics.CONFIDENCE


def values(distances: pd.DataFrame, variant: str) -> pd.Series[float]:
    """A variant's distances, by seed."""
    rows = distances[distances["variant"] == variant]
    return rows.set_index("seed")["value"].astype(float).sort_index()


def paired(
    distances: pd.DataFrame, variant: str, baseline: str
) -> tuple[pd.Series[float], pd.Series[float]]:
    """The two variants' distances at the seeds that both have."""
    ours, theirs = values(distances, variant), values(distances, baseline)
    seeds = ours.index.intersection(theirs.index)
    return ours[seeds], theirs[seeds]


def average(distances: pd.DataFrame, variant: str) -> Estimate:
    """A variant's mean over seeds, with its interval."""
    found = values(distances, variant)
    widened = tuning.widening(len(found), _points(distances, variant), 0)
    return statistics.mean(found, widened)


def differences(distances: pd.DataFrame, pairs: list[tuple[str, str]]) -> list[Difference]:
    """The difference of each pair (variant, baseline); p is corrected for all of them."""
    found = []
    for variant, baseline in pairs:
        ours, theirs = paired(distances, variant, baseline)
        points = (_points(distances, name) for name in (variant, baseline))
        widened = tuning.widening(len(ours), *points)
        # the unbiased kernel distances may be below zero
        is_bounded = kind(distances["metric"].iloc[0]) == "Fréchet"
        found.append(
            (
                statistics.difference(ours, theirs, widened=widened),
                statistics.relative_change(ours, theirs, widened=widened, non_negative=is_bounded),
                statistics.p_value(ours, theirs, widened),
            )
        )
    corrected = statistics.holm([p for _, _, p in found])
    return [Difference(*one, float(p)) for one, p in zip(found, corrected, strict=True)]


def _points(distances: pd.DataFrame, variant: str) -> int:
    """The number of points of the tune axes among which the variant's best was chosen."""
    return max(distances.loc[distances["variant"] == variant, "points"], default=1)
