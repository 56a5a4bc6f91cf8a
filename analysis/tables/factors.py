"""What the factors of a grid do: main effects, interactions, and the steps of a ladder."""

from __future__ import annotations

import pandas as pd

from analysis.judging import comparison, distances, effects, paired
from analysis.study import NothingToShow, Study
from analysis.tables.cells import DIFFERENCE, bounds, printer
from analysis.tables.compare import DIFFERENCES, columns_of
from analysis.tables.table import table

pretty_effects = printer(
    {"effect": "effect", "Δ {metric}": "difference", "p": "p", "p, Holm": "p_holm", "runs": "runs"}
)


@table(
    title="Main effects",
    caption="Each level against its factor's first, over all settings of the other factors. Least "
    "squares with the seeds as blocks, 95 % intervals. p: t test; corrected for all main effects "
    "(Holm).",
    text=pretty_effects,
    place=70,
)
def main_effects(study: Study) -> pd.DataFrame:
    """Each factor's levels against its first, over all settings of the others.

    ``effect``; ``metric``; ``difference``, ``low``, ``high`` (of the distance, 95 % interval);
    ``p``, ``p_holm`` (corrected for all main effects); ``runs``.
    """
    return _effects(study, 1)


@table(
    title="Interactions of two factors",
    caption="Half the difference between a factor's effect at the other factor's level and at its "
    "first level. Fit, intervals and p as for the main effects.",
    text=pretty_effects,
    place=80,
)
def interactions(study: Study) -> pd.DataFrame:
    """What two factors do together beyond what each does alone; columns as of main effects."""
    return _effects(study, 2)


def _effects(study: Study, order: int) -> pd.DataFrame:
    found = comparison.factorial(study).of(order)
    metric = distances.title(study)
    return pd.DataFrame(
        {
            "effect": effects.name(effect.factors, effect.levels),
            "metric": metric,
            **bounds(effect.estimate, DIFFERENCE),
            "p": effect.p,
            "p_holm": effect.p_holm,
            "runs": effect.estimate.n,
        }
        for effect in found
    )


@table(
    title="What each step of the ladder adds",
    caption=f"{DIFFERENCES} p: paired t test; corrected for all steps (Holm).",
    text=printer(
        {
            "step": "variant",
            "adds": "adds",
            "Δ {metric} to the step before": "difference",
            "Δ, %": "relative",
            "seeds": "pairs",
            "p": "p",
            "p, Holm": "p_holm",
        }
    ),
    place=50,
)
def contributions(study: Study) -> pd.DataFrame:
    """What each step of a ladder adds to the one before it.

    ``variant``, ``baseline`` (the step before); ``adds`` (the flags); ``metric``; ``difference``,
    ``low``, ``high``, ``relative``, ``…_low``, ``…_high`` (paired by seed, 95 % intervals),
    ``pairs``; ``p`` (paired t test), ``p_holm`` (corrected for all steps).
    In a ladder each variant has the flags of the one before and more.
    """
    values, metric = comparison.distances(study), distances.title(study)
    flags = {str(variant): flags for variant, flags in study.designs["flags"].items()}
    steps = [
        (variant, before)
        for group in comparison.ladder(study)
        for before, variant in comparison.steps(group, flags)
    ]
    if not steps:
        raise NothingToShow("no variants add flags step by step")
    return pd.DataFrame(
        {
            "variant": variant,
            "baseline": before,
            "adds": ", ".join(flag for flag in flags[variant] if flag not in flags[before]),
            "metric": metric,
            **columns_of(difference),
        }
        for (variant, before), difference in zip(
            steps, paired.differences(values, steps), strict=True
        )
    )
