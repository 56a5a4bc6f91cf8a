"""Tables of main effects and interactions of factors, and of a ladder's steps."""

from __future__ import annotations

import pandas as pd

from analysis.judging import answers, comparison, distances, effects, levels
from analysis.study import NothingToShow, Study
from analysis.tables.cells import printer
from analysis.tables.compare import CHANGES, columns_of
from analysis.tables.table import table
from mpdit.modelconfig import SPELLED

pretty_effects = printer(
    {
        "effect": "name",
        "change of {metric}": "effect",
        "p": "p",
        "depends on": "depends",
        "runs": "runs",
    },
    maybe=["depends on"],
)
FIT = (
    "Least squares with the seeds as blocks (ratios on the log scale), averaged over the grid's "
    "settings of the other factors."
)


@table(
    title="Main effects",
    caption=f"Each level against its factor's first level. {FIT} Intervals and p are corrected for "
    "all effects. Depends on: factors whose levels reverse or remove the effect.",
    text=pretty_effects,
    place=70,
)
def main_effects(study: Study) -> pd.DataFrame:
    """Compare each factor's levels with its first level, over the settings of the other factors.

    ``name`` (with the condition under which it holds); ``metric``; ``effect``, ``low``, ``high``,
    ``scale``; ``p`` (corrected for all effects); ``depends`` (in words, the factors whose levels
    reverse or remove the effect); ``runs``.
    """
    return _effects(study, 1)


@table(
    title="Interactions of two factors",
    caption="Half the difference between a factor's effect at the other factor's level and at its "
    f"first level. {FIT} Intervals and p are corrected for all effects.",
    text=pretty_effects,
    place=80,
)
def interactions(study: Study) -> pd.DataFrame:
    """Compare the joint effect of two factors with their separate effects.

    The columns are as in `main_effects`.
    """
    return _effects(study, 2)


def _effects(study: Study, order: int) -> pd.DataFrame:
    found, rules = comparison.factorial(study).of(order), distances.rules(study)
    return pd.DataFrame(
        {
            "name": effects.name(effect.factors, effect.levels) + answers.where_words(effect),
            "metric": distances.title(study),
            "effect": rules.outer(effect.estimate.value),
            "low": rules.outer(effect.estimate.low),
            "high": rules.outer(effect.estimate.high),
            "scale": rules.scale,
            "p": effect.p,
            "depends": answers.dependence_words(effect, rules) or "–",
            "runs": effect.estimate.n,
        }
        for effect in found
    )


@table(
    title="What each step of the ladder adds",
    caption=f"{CHANGES} Steps that are comparisons of the study are tested (see Verdicts); "
    "other steps get an interval but no verdict.",
    text=printer(
        {
            "step": "variant",
            "adds": "adds",
            "change of {metric} to the step before": "effect",
            "seeds": "seeds",
        }
    ),
    place=50,
)
def contributions(study: Study) -> pd.DataFrame:
    """Compare each step of a ladder with the step before it.

    ``variant``, ``baseline`` (the step before); ``adds`` (the flags, and all other differences
    between the configs); ``metric``; ``effect``, ``low``, ``high``, ``scale``, ``seeds``.
    In a ladder, each variant has the flags of the variant before it and more.
    """
    found = answers.family(study)
    estimates, rules = {**found.described, **found.decisions}, distances.rules(study)
    steps = comparison.steps(study)
    if not steps:
        raise NothingToShow("no variants add flags step by step")
    rows = []
    for variant, before in steps:
        columns = columns_of(estimates[variant, before], rules)
        row = {
            "variant": variant,
            "baseline": before,
            "adds": _added(study, variant, before),
            "metric": distances.title(study),
            **{key: columns[key] for key in ("effect", "low", "high", "scale")},
            "seeds": min(
                estimates[variant, before].seeds, estimates[variant, before].baseline_seeds
            ),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _added(study: Study, variant: str, before: str) -> str:
    """List the flags that a step adds, then every other setting that it changes.

    Options that are set by such a flag (`SPELLED`) are not listed again.
    """
    one, other = (study.designs.loc[name] for name in (variant, before))
    flags = [flag for flag in one["flags"] if flag not in other["flags"]]
    spelled = (name for name, option in SPELLED.items() if option.field in flags)
    apart = {"seed", *(f"model.{name}" for name in (*flags, *spelled))}
    changed = [
        f"{key} {levels.text(one[key])}"
        for key in map(str, study.designs.columns)
        if "." in key
        and key.partition(".")[0] in ("model", "data", "train", "sample", "evaluate")
        and key not in apart
        and f"tune.{key}" not in study.tune
        and levels.text(one[key]) != levels.text(other[key])
    ]
    return ", ".join([*flags, *changed])
