"""Runs that failed: they diverged, or their value is far worse than all others.

A failed run is an outcome. It is counted, and it is worse than any value, but it has no value that
a mean could contain: one run at 400 among runs at 20 would decide every mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BOUND = 10.0
"""A run fails when it is worse than its variant's median by this many robust standard deviations.
The larger of two is used: of the variant's other runs, and of all variants together (1.4826 times
the median deviation from the variant's median)."""
FEWEST = 3
"""The fewest runs of a variant with a median, and so with outliers."""
_TO_SD = 1.4826  # of a normal distribution


def outliers(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each variant, which of its values are failures by `BOUND`.

    Args:
        values: variant → (runs), smaller is better, NaN for a run without a value.
    """
    excess = {}
    for variant, found in values.items():
        there = found[np.isfinite(found)]
        excess[variant] = found - (np.median(there) if len(there) >= FEWEST else np.nan)
    # a variant's median has no deviation from itself
    together = _spread(np.concatenate([np.empty(0), *excess.values()]))
    with np.errstate(invalid="ignore"):
        return {
            variant: found > BOUND * np.fmax(together, _spread(np.delete(found, _worst(found))))
            for variant, found in excess.items()
        }


def _worst(deviations: np.ndarray) -> list[int]:
    """The index of the worst run. It may be an outlier, so the others' spread leaves it out."""
    there = np.isfinite(deviations)
    return [int(np.argmax(np.where(there, deviations, -np.inf)))] if there.any() else []


def _spread(deviations: np.ndarray) -> float:
    """The robust standard deviation; NaN without any deviation."""
    sizes = np.abs(deviations[np.isfinite(deviations) & (deviations != 0)])
    return float(_TO_SD * np.median(sizes)) if len(sizes) else np.nan
