"""Who is compared with whom, and by which number.

Derived from the configs, never from names. Within a comparison the first variant in grid order is
the baseline; where a study has several model sizes or data sets, each has its own. What is about
distances raises `NothingToShow` before the first evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.judging import effects, levels, paired, tuning
from analysis.judging.distances import in_role, judged, label, of_runs, own, repeats
from analysis.study import NothingToShow, Study

CONDITIONING = ["model.conditioning", "model.final_conditioning"]
SETTING = ["model", "data.name"]
MEASURED = ("weights", "count", "reference.hash", "reference.split")
"""Must be the same for distances to be compared, and so must the settings of sampling ..."""
OWN = ("sampling.seed", "sampling.ema_error", "sampling.snapshot")
"""... except those that each run has for itself."""


@dataclass(frozen=True)
class Comparison:
    """Variants in grid order, compared with the first."""

    variants: tuple[str, ...]

    @property
    def baseline(self) -> str:
        return self.variants[0]


def ladder(study: Study) -> list[Comparison]:
    """The variants that share the first one's conditioning: they differ by flags."""
    designs = study.designs
    if designs.empty:
        return []
    same = (designs[CONDITIONING] == designs[CONDITIONING].iloc[0]).all(axis=1)
    return _groups(designs[same], SETTING)


def modulation(study: Study) -> list[Comparison]:
    """Sets of variants with the same flags that differ in conditioning."""
    groups = _groups(study.designs, [*SETTING, "flags"])
    return [
        group
        for group in groups
        if len(study.designs.loc[list(group.variants), CONDITIONING].drop_duplicates()) > 1
    ]


def others(study: Study) -> list[Comparison]:
    """The variants in neither of the two, compared with the study's first variant."""
    designs = study.designs
    seen = {v for group in ladder(study) + modulation(study) for v in group.variants}
    rest = [v for v in designs.index if v not in seen]
    return [Comparison((str(designs.index[0]), *map(str, rest)))] if rest else []


def groups(study: Study) -> list[Comparison]:
    """All comparisons of the study."""
    return [*ladder(study), *modulation(study), *others(study)]


def pairs(study: Study) -> list[tuple[str, str]]:
    """Every variant and each baseline that it is compared with, in the tables' order."""
    found = [(v, group.baseline) for group in groups(study) for v in group.variants[1:]]
    return list(dict.fromkeys(found))


def steps(group: Comparison, flags: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """(before, after) for each step of a ladder: a variant with all flags of the last, and more.

    Variants that do not add to the last step are skipped. Fewer than two steps are no ladder.
    """
    chain = [group.baseline]
    for variant in group.variants[1:]:
        if set(flags[variant]) > set(flags[chain[-1]]):
            chain.append(variant)
    return list(pairwise(chain)) if len(chain) > 2 else []


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
    return effects.factorial(runs, list(settings))


def _groups(designs: pd.DataFrame, keys: list[str]) -> list[Comparison]:
    if designs.empty:  # and without the columns of a config
        return []
    groups: dict[tuple[object, ...], list[str]] = {}
    for variant, *key in designs[keys].itertuples(name=None):
        groups.setdefault(tuple(key), []).append(str(variant))
    return [Comparison(tuple(group)) for group in groups.values()]


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
    columns = ["run", "variant", "value"]
    sets = pd.concat([distances(study)[columns], companions(study, "repeat")[columns]])
    by_run = sets.astype({"value": float}).groupby(["variant", "run"], observed=True)["value"]
    return by_run.var(ddof=1).groupby("variant", observed=True).mean() ** 0.5


def floor_statement(study: Study) -> str:
    """The distance of real held-out images in words; nothing where runs have none or several."""
    rows = companions(study, "floor")
    if rows.empty or rows["metric"].nunique() > 1 or np.ptp(rows["value"].astype(float)) > 1e-6:
        return ""
    name, value = rows[["metric", "value"]].iloc[0]
    return f"Real held-out images have {name} {float(value):.3g}: the floor."


def distances(study: Study) -> pd.DataFrame:
    """One row a variant and seed: ``run``, ``variant``, ``seed``, ``metric``, ``value``, ``tuned``.

    In a tuned study the run is at the variant's own best point, which ``tuned`` names and which was
    chosen among ``points`` (1: no choice), if possible without this distance
    (:mod:`analysis.judging.tuning`).
    """
    picked = tuning.choose(study).rename(columns={"point": "tuned"})
    picked = picked.assign(metric=label(study))
    return picked[["run", "variant", "seed", "metric", "value", "tuned", "points"]]


def chosen(study: Study) -> pd.DataFrame:
    """The rows of ``runs`` that figures show: of a tuned variant those at its best point.

    The best point is that by all seeds; before the first evaluation all runs are shown.
    """
    runs = study.runs
    try:
        points, best = of_runs(study).set_index("run")["point"], tuning.best(study)
    except NothingToShow:  # also where nothing is tuned
        return runs
    out = runs["variant"].isin(best.index) & (
        runs["run"].map(points).astype(object) != runs["variant"].astype(object).map(best)
    )
    return runs[~out]


def incomparable(study: Study) -> list[str]:
    """Why some distances cannot be compared, in words; empty where all can."""
    name, distance = label(study), judged(study)
    infinite = ~np.isfinite(distance["value"].astype(float))
    return [
        *(
            f"{run} has {', '.join(group['metric'])} but not {name}: left out"
            for run, group in own(study).groupby("run", sort=False)
            if name not in set(group["metric"])
        ),
        *(f"{run}: its {name} is not a number: left out" for run in distance["run"][infinite]),
        *(
            f"the runs' distances differ in {key} ({', '.join(found)}): not comparable"
            for key, found in differing(study).items()
        ),
    ]


def differing(study: Study) -> dict[str, list[str]]:
    """The settings of measuring in which the runs' distances differ, with their values."""
    rows = judged(study)
    settings = [key for key in map(str, rows) if key in MEASURED or key.startswith("sampling.")]
    found = {key: list(rows[key].map(levels.text).unique()) for key in settings if key not in OWN}
    return {key: values for key, values in found.items() if len(values) > 1}


def differences(study: Study) -> dict[tuple[str, str], paired.Difference]:
    """All of :func:`pairs`; p is corrected for all of them, so all tables have the same."""
    found = pairs(study)
    return dict(zip(found, paired.differences(distances(study), found), strict=True))
