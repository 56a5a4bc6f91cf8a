"""The distances of a variant by seed, and their mean."""

from __future__ import annotations

import pandas as pd

from analysis.judging import statistics, tuning
from analysis.judging.statistics import Estimate


def values(distances: pd.DataFrame, variant: str) -> pd.Series[float]:
    """Return a variant's distances, by seed."""
    rows = distances[distances["variant"] == variant]
    return rows.set_index("seed")["value"].astype(float).sort_index()


def average(distances: pd.DataFrame, variant: str) -> Estimate:
    """Return a variant's mean over seeds, with its interval."""
    found = values(distances, variant)
    points = max(distances.loc[distances["variant"] == variant, "points"], default=1)
    return statistics.mean(found, tuning.widening(len(found), points, 0))
