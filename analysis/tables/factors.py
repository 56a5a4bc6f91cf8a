"""What the factors of a grid do: main effects, interactions, and the steps of a ladder."""

from __future__ import annotations

import pandas as pd

from analysis.judging import comparison, effects, paired
from analysis.study import NothingToShow, Study
from analysis.tables.cells import change, decimals_of_changes, probability
from analysis.tables.compare import DIFFERENCE, RELATIVE, columns_of


def main_effects(study: Study) -> pd.DataFrame:
    """Each factor's levels against its first, over all settings of the others.

    ``effect``; ``metric``; ``difference``, ``low``, ``high`` (of the distance, 95 % interval);
    ``p``, ``p_holm`` (corrected for all main effects); ``runs``.

    Raises:
        NothingToShow: before the first evaluation, or when the grid crosses no two axes.
    """
    return _effects(study, 1)


def interactions(study: Study) -> pd.DataFrame:
    """What two factors do together beyond what each does alone; columns as of main effects.

    Raises:
        NothingToShow: as there, or when no two axes have all their combinations.
    """
    return _effects(study, 2)


def _effects(study: Study, order: int) -> pd.DataFrame:
    fit = comparison.factorial(study)
    found = [effect for effect in fit.effects if len(effect.factors) == order]
    if not found:
        raise NothingToShow("no two axes of the grid have all their combinations")
    metric = comparison.title(study)
    return pd.DataFrame(
        {
            "effect": effects.name(effect.factors, effect.levels),
            "metric": metric,
            "difference": effect.estimate.value,
            "low": effect.estimate.low,
            "high": effect.estimate.high,
            "p": effect.p,
            "p_holm": effect.p_holm,
            "runs": effect.estimate.n,
        }
        for effect in found
    )


def contributions(study: Study) -> pd.DataFrame:
    """What each step of a ladder adds to the one before it.

    ``variant``, ``baseline`` (the step before); ``adds`` (the flags); ``metric``; ``difference``,
    ``low``, ``high``, ``relative``, ``…_low``, ``…_high`` (paired by seed, 95 % intervals),
    ``pairs``; ``p`` (paired t test), ``p_holm`` (corrected for all steps).

    Raises:
        NothingToShow: before the first evaluation, or when no variants are a ladder: each with the
            flags of the one before and more.
    """
    distances, metric = comparison.distances(study), comparison.title(study)
    flags = {str(variant): flags for variant, flags in study.designs["flags"].items()}
    steps = [
        (variant, before)
        for group in comparison.ladder(study)
        for before, variant in comparison.steps(group, flags)
    ]
    if not steps:
        raise NothingToShow("no variants add flags step by step")
    found = paired.differences(distances, steps)
    return pd.DataFrame(
        {
            "variant": variant,
            "baseline": before,
            "adds": ", ".join(flag for flag in flags[variant] if flag not in flags[before]),
            "metric": metric,
            **columns_of(difference),
        }
        for (variant, before), difference in zip(steps, found, strict=True)
    )


def pretty_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Main effects or interactions as text for people."""
    places = decimals_of_changes(table)
    return pd.DataFrame(
        {
            "effect": row["effect"],
            f"Δ {row['metric']}": change(row, DIFFERENCE, 1, places),
            "p": probability(row["p"]),
            "p, Holm": probability(row["p_holm"]),
            "runs": str(row["runs"]),
        }
        for row in table.to_dict("records")
    )


def pretty_contributions(table: pd.DataFrame) -> pd.DataFrame:
    """As text for people."""
    places = decimals_of_changes(table)
    return pd.DataFrame(
        {
            "step": row["variant"],
            "adds": row["adds"],
            f"Δ {row['metric']} to the step before": change(row, DIFFERENCE, 1, places),
            "Δ, %": change(row, RELATIVE, 100, 1),
            "seeds": str(row["pairs"]),
            "p": probability(row["p"]),
            "p, Holm": probability(row["p_holm"]),
        }
        for row in table.to_dict("records")
    )
