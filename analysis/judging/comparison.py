"""Who is compared with whom (`mpdit.decisions.comparisons`), and by which number.

What is about distances raises `NothingToShow` before the first evaluation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.judging import effects, levels, tuning
from analysis.judging.distances import in_role, judged, label, of_runs, own, repeats, rules
from analysis.study import NothingToShow, Study, once
from mpdit.decisions import comparisons
from mpdit.decisions.comparisons import ComparisonGroup, Design
from mpdit.decisions.family import Pair

CONDITIONING = ["model.conditioning", "model.final_conditioning"]
SETTING = ["model", "data.name"]
MEASURED = ("weights", "count", "reference.hash", "reference.split")
"""Must be the same for distances to be compared, and so must the settings of sampling ..."""
OWN = ("sampling.seed", "sampling.ema_error", "sampling.snapshot")
"""... except those that each run has for itself."""


@once
def designs(study: Study) -> list[Design]:
    """What each variant is made of, in grid order; of joined studies, apart where they share no
    variant."""
    if study.designs.empty:  # and without the columns of a config
        return []
    columns = study.designs.assign(part=parts(study))[[*SETTING, "part", *CONDITIONING, "flags"]]
    return [
        Design(str(name), tuple(row[:3]), tuple(row[3:5]), tuple(row[5]))
        for name, *row in columns.itertuples(name=None)
    ]


def parts(study: Study) -> pd.Series[int]:
    """Variant → a number that it shares with those it may be compared with."""
    found: pd.Series[int] = study.designs.reindex(columns=["part"])["part"].fillna(0)
    return found


@once
def ladder(study: Study) -> list[ComparisonGroup]:
    """The variants that share the first one's conditioning: they differ by flags."""
    return comparisons.ladder(designs(study))


@once
def modulation(study: Study) -> list[ComparisonGroup]:
    """Sets of variants with the same flags that differ in conditioning."""
    return comparisons.modulation(designs(study))


@once
def others(study: Study) -> list[ComparisonGroup]:
    """The variants in neither of the two, compared with the first of their setting."""
    return comparisons.others(designs(study))


def groups(study: Study) -> list[ComparisonGroup]:
    """All comparisons of the study."""
    return [*ladder(study), *modulation(study), *others(study)]


@once
def pairs(study: Study) -> list[Pair]:
    """Every variant and each baseline that it is compared with, in the tables' order."""
    return comparisons.pairs(designs(study))


@once
def steps(study: Study) -> list[Pair]:
    """Each step of the study's ladders, and the one before it."""
    found = designs(study)
    return [step for group in ladder(study) for step in comparisons.steps(group, found)]


@once
def factorial(study: Study) -> effects.Factorial:
    """Main effects and interactions of the grid's axes on the distance, under the axes' names.

    Raises:
        NothingToShow: before the first evaluation, or when the grid crosses no two axes.
    """
    factors = {
        str(column): str(column).removeprefix("axis.").removeprefix("model.")
        for column in study.runs.columns
        if str(column).startswith("axis.") and study.runs[column].map(levels.text).nunique() > 1
    }
    if len(factors) < 2:
        raise NothingToShow("the grid has no two axes that are crossed")
    settings = {name: levels.levels(study.runs[column]) for column, name in factors.items()}
    runs = distances(study).merge(study.runs[["run"]].assign(**settings), on="run")
    points, seeds = int(runs["points"].max()), runs["seed"].nunique()
    widened = tuning.widening(seeds, points, points)
    only_main = study.declared.get("fraction") == "main"
    return effects.factorial(runs, list(settings), rules(study), widened, only_main=only_main)


def companions(study: Study, role: str) -> pd.DataFrame:
    """The judged distance in another role (limit, repeat, floor), of the runs in `distances`.

    One row an evaluation; repeats are of the run's own extractor and count.
    """
    if role == "repeat":
        rows = repeats(study)
    else:
        rows = in_role(study, role).drop_duplicates("run", keep="last")
    return rows[rows["run"].isin(distances(study)["run"])]


def sampling_sd(study: Study) -> pd.Series[float]:
    """By variant, the standard deviation between sample sets of one model, pooled over its runs.

    NaN where none has repeats.
    """
    columns, mine = ["run", "variant", "value"], judged(study)
    mine = mine[mine["run"].isin(distances(study)["run"])]
    sets = pd.concat([mine[columns], companions(study, "repeat")[columns]])
    by_run = sets.astype({"value": float}).groupby(["variant", "run"], observed=True)["value"]
    return by_run.var(ddof=1).groupby("variant", observed=True).mean() ** 0.5


def floor_statement(study: Study) -> str:
    """The distance of real held-out images in words; nothing where runs have none or several."""
    rows = companions(study, "floor")
    if rows.empty or rows["metric"].nunique() > 1 or np.ptp(rows["value"].astype(float)) > 1e-6:
        return ""
    name, value = rows[["metric", "value"]].iloc[0]
    return f"Real held-out images have {name} {float(value):.3g}: the floor."


@once
def distances(study: Study) -> pd.DataFrame:
    """One row a variant and seed: ``run``, ``variant``, ``seed``, ``metric``, ``value``, ``tuned``.

    In a tuned study the run is at the variant's own best point, which ``tuned`` names and which was
    chosen among ``points`` (1: no choice), if possible without this distance
    (:mod:`analysis.judging.tuning`).
    """
    picked = tuning.choose(study).rename(columns={"point": "tuned"})
    picked = picked.assign(metric=label(study))
    return picked[["run", "variant", "seed", "metric", "value", "tuned", "points"]]


@once
def chosen(study: Study) -> pd.DataFrame:
    """The rows of ``runs`` that figures show: of a tuned variant those at its best point.

    The best point is that by all seeds; before the first evaluation all runs are shown.
    """
    runs = study.runs
    if apart := tuning.seeds_apart(study):
        compared = runs[~runs["seed"].isin(apart)]
        return runs if compared.empty else compared
    try:
        points, best = of_runs(study).set_index("run")["point"], tuning.best(study)
    except NothingToShow:  # also where nothing is tuned
        return runs
    out = runs["variant"].isin(best.index) & (
        runs["run"].map(points).astype(object) != runs["variant"].astype(object).map(best)
    )
    return runs[~out]


@once
def left_out(study: Study) -> list[str]:
    """The runs that have other numbers than those compared, in words."""
    name, distance = label(study), judged(study)
    infinite = ~np.isfinite(distance["value"].astype(float))
    return [
        *(
            f"{run} has {', '.join(group['metric'])} but not {name}: left out"
            for run, group in own(study).groupby("run", sort=False)
            if name not in set(group["metric"])
        ),
        *(f"{run}: its {name} is not a number: failed" for run in distance["run"][infinite]),
    ]


@once
def differing(study: Study) -> dict[str, list[str]]:
    """The settings of measuring in which the runs' distances differ, with their values."""
    rows = judged(study)
    settings = [key for key in map(str, rows) if key in MEASURED or key.startswith("sampling.")]
    # a setting that the grid varies is what is compared
    keys = {key: key.replace("sampling.", "sample.") for key in settings}
    keys |= {"sampling.sampler": "sample.solver"}
    asked = {key for key in settings if f"axis.{keys[key]}" in study.runs}
    settings = [key for key in settings if key not in (*OWN, *asked)]
    found = {key: list(rows[key].map(levels.text).unique()) for key in settings}
    return {key: values for key, values in found.items() if len(values) > 1}
