"""The comparisons of a study (`mpdit.decisions.comparisons`) and the distances compared.

Functions that need distances raise `NothingToShow` before the first evaluation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.judging import effects, levels, tuning
from analysis.judging.distances import in_role, judged, label, of_runs, own, repeats, rules
from analysis.study import NothingToShow, Study, once
from mpdit.catalogue.flags import part_conditioning
from mpdit.decisions import comparisons
from mpdit.decisions.comparisons import ComparisonGroup, Design
from mpdit.decisions.failures import outliers
from mpdit.decisions.family import Pair

CONDITIONING = ["model.conditioning", "model.final_conditioning"]
SETTING = ["model", "data.name"]
MEASURED = ("weights", "count", "reference.hash", "reference.split")
"""Columns that must be equal for distances to be compared, like the ``sampling.`` columns."""
OWN = ("sampling.seed", "sampling.ema_error", "sampling.snapshot")
"""Columns of ``sampling.`` that may differ between compared runs."""


@once
def designs(study: Study) -> list[Design]:
    """Return each variant's design, in grid order. Joined studies that share no variant get
    different settings, so that they are not compared."""
    if study.designs.empty:  # and without the columns of a config
        return []
    columns = study.designs.assign(part=parts(study))[[*SETTING, "part", *CONDITIONING, "flags"]]
    found = []
    for name, *row in columns.itertuples(name=None):
        of_conditioning, flags = part_conditioning(row[5])
        conditioning = (*row[3:5], of_conditioning)
        found.append(Design(str(name), tuple(row[:3]), conditioning, flags))
    return found


def parts(study: Study) -> pd.Series[int]:
    """Return variant → a number; variants with the same number may be compared."""
    found: pd.Series[int] = study.designs.reindex(columns=["part"])["part"].fillna(0)
    return found


@once
def ladder(study: Study) -> list[ComparisonGroup]:
    """Return the variants with the first variant's conditioning, which differ by flags."""
    return comparisons.ladder(designs(study))


@once
def modulation(study: Study) -> list[ComparisonGroup]:
    """Return sets of variants with the same flags that differ in conditioning."""
    return comparisons.modulation(designs(study))


@once
def others(study: Study) -> list[ComparisonGroup]:
    """Return the variants in neither ladder nor modulation, with the first of their setting."""
    return comparisons.others(designs(study))


def groups(study: Study) -> list[ComparisonGroup]:
    """Return all comparisons of the study."""
    return [*ladder(study), *modulation(study), *others(study)]


@once
def pairs(study: Study) -> list[Pair]:
    """Return every (variant, baseline) that is compared, in the tables' order."""
    return comparisons.pairs(designs(study))


@once
def steps(study: Study) -> list[Pair]:
    """Return each step of the study's ladders with the step before it."""
    found = designs(study)
    return [step for group in ladder(study) for step in comparisons.steps(group, found)]


@once
def factorial(study: Study) -> effects.Factorial:
    """Return main effects and interactions of the grid's axes on the distance.

    Raises:
        NothingToShow: before the first evaluation, or when the grid crosses no two axes.
    """
    settings = factors(study)
    if settings.shape[1] < 2:
        raise NothingToShow("the grid has no two axes that are crossed")
    runs = sound(study).astype({"run": str}).merge(settings, left_on="run", right_index=True)
    if runs.empty:
        raise NothingToShow("no run has a finite distance")
    points, seeds = int(runs["points"].max()), runs["seed"].nunique()
    widened = tuning.widening(seeds, points, points)
    fraction = study.declared.get("fraction")
    return effects.factorial(runs, list(map(str, settings)), rules(study), widened, fraction)


@once
def factors(study: Study) -> pd.DataFrame:
    """Return run → its level on each of the grid's axes that have several levels."""
    order = study.declared.get("levels") or {}
    found = {}
    for column in _axes(study.runs):
        key = column.removeprefix("axis.")
        name = key.removeprefix("model.")
        found[name] = levels.levels(study.runs[column], order.get(key, ()))
    return pd.DataFrame(found, index=study.runs.index).set_index(study.runs["run"].astype(str))


@once
def sound(study: Study) -> pd.DataFrame:
    """Return the rows of `distances` without outliers, which count as failures
    (`mpdit.decisions.failures`)."""
    table, how = distances(study), rules(study)
    sign = 1 if how.lower_is_better else -1
    inner = sign * table["value"].map(how.inner).astype(float)
    places = inner.groupby(table["variant"].astype(str)).groups
    far = outliers({str(name): inner[rows].to_numpy() for name, rows in places.items()})
    failed = [row for name, rows in places.items() for row in rows[far[str(name)]]]
    return table.drop(index=failed)


def _axes(runs: pd.DataFrame) -> list[str]:
    """Return the columns of the axes with several levels.

    Zipped keys are one factor, represented by the first key that determines the others' levels.
    """
    columns = [str(column) for column in runs.columns if str(column).startswith("axis.")]
    texts = runs[columns].map(levels.text)
    kept = [column for column in columns if texts[column].nunique() > 1]

    def tells(one: str, other: str) -> bool:
        return len(texts[[one, other]].drop_duplicates()) == texts[one].nunique()

    for column in kept[::-1]:
        if any(tells(other, column) for other in kept if other != column):
            kept.remove(column)
    return kept


def companions(study: Study, role: str) -> pd.DataFrame:
    """Return the judged distance in another role (limit, repeat, floor), of runs in `distances`.

    One row per evaluation. Repeats have the run's own extractor and count.
    """
    if role == "repeat":
        rows = repeats(study)
    else:
        rows = in_role(study, role).drop_duplicates("run", keep="last")
    return rows[rows["run"].isin(distances(study)["run"])]


def sampling_sd(study: Study) -> pd.Series[float]:
    """Return by variant the standard deviation between sample sets of one run, pooled over runs.

    NaN if no run of the variant has repeats.
    """
    columns, mine = ["run", "variant", "value"], judged(study)
    mine = mine[mine["run"].isin(distances(study)["run"])]
    sets = pd.concat([mine[columns], companions(study, "repeat")[columns]])
    by_run = sets.astype({"value": float}).groupby(["variant", "run"], observed=True)["value"]
    return by_run.var(ddof=1).groupby("variant", observed=True).mean() ** 0.5


def floor_statement(study: Study) -> str:
    """Describe the distance of real held-out images; '' if runs have none or different ones."""
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
    """Return the rows of ``runs`` that figures show; for a tuned variant, those at its best point.

    The best point is chosen on all seeds. Before the first evaluation, all runs are shown.
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
    """Describe the runs that lack the compared metric or have no finite value of it."""
    name, distance = label(study), judged(study)
    infinite = ~np.isfinite(distance["value"].astype(float))
    return [
        *(
            f"{run} has {', '.join(group['metric'])} but not {name}: left out"
            for run, group in own(study).groupby("run", sort=False)
            if name not in set(group["metric"])
        ),
        *(f"{run}: its {name} is NaN or infinite: failed" for run in distance["run"][infinite]),
    ]


@once
def differing(study: Study) -> dict[str, list[str]]:
    """Return the measurement settings that differ between the runs' distances, with values."""
    rows = judged(study)
    settings = [key for key in map(str, rows) if key in MEASURED or key.startswith("sampling.")]
    # a setting that is an axis of the grid may differ: the study compares its values
    keys = {key: key.replace("sampling.", "sample.") for key in settings}
    keys |= {"sampling.sampler": "sample.solver"}
    asked = {key for key in settings if f"axis.{keys[key]}" in study.runs}
    settings = [key for key in settings if key not in (*OWN, *asked)]
    found = {key: list(rows[key].map(levels.text).unique()) for key in settings}
    return {key: values for key, values in found.items() if len(values) > 1}
