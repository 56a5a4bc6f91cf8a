"""Who is compared with whom, and by which number.

Derived from the configs, never from names. Within a comparison the first variant in grid order is
the baseline; where a study has several model sizes or data sets, each has its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.load import NothingToShow, Study

CONDITIONING = ["model.conditioning", "model.final_conditioning"]
SETTING = ["model", "data.name"]
DISTANCES = ("FD", "FID", "KD", "KID")
"""Smaller is better; precision, recall and scores are not what a study is judged by."""


@dataclass(frozen=True)
class Comparison:
    """Variants in grid order, judged against the first."""

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
    """What neither of the two takes up, judged against the study's first variant."""
    designs = study.designs
    seen = {v for group in ladder(study) + modulation(study) for v in group.variants}
    rest = [v for v in designs.index if v not in seen]
    return [Comparison((str(designs.index[0]), *map(str, rest)))] if rest else []


def _groups(designs: pd.DataFrame, keys: list[str]) -> list[Comparison]:
    groups: dict[tuple[object, ...], list[str]] = {}
    for variant, *key in designs[keys].itertuples(name=None):
        groups.setdefault(tuple(key), []).append(str(variant))
    return [Comparison(tuple(group)) for group in groups.values()]


def own(study: Study) -> pd.DataFrame:
    """The evaluations of the runs as they were configured: no sweep, repeat, limit or floor."""
    return study.evaluations[study.evaluations["role"] == "run"]


def label(study: Study) -> str:
    """The distance by which the study is judged: the one that most runs have, of equals the first.

    Raises:
        NothingToShow: before the first evaluation by a distance.
    """
    rows = own(study).drop_duplicates(["run", "metric"])
    rows = rows[[name.split("@")[0].split("-")[0] in DISTANCES for name in rows["metric"]]]
    if rows.empty:
        raise NothingToShow("no run has been evaluated yet")
    counts = rows.groupby("metric", sort=False).size()
    return str(counts.idxmax())


def title(study: Study) -> str:
    """``label`` as a heading. Only a distance in Inception's features may be called FID."""
    name = label(study)
    rows = own(study)
    extractor = str(rows.loc[rows["metric"] == name, "extractor"].iloc[0])
    if name.startswith("FID") and not extractor.startswith("inception"):
        name = f"FD-{extractor}" + name.removeprefix("FID")
    return name


def companions(study: Study, role: str) -> pd.DataFrame:
    """The same distance in another role (limit, repeat, floor), also of another count.

    One row an evaluation of the runs that stand for their variants; of the repeats, those whose
    extractor and count are the run's own.
    """
    name = label(study)
    rows = study.evaluations[study.evaluations["role"] == role]
    rows = rows[rows["metric"].str.split("@").str[0] == name.split("@")[0]]
    if role == "repeat":
        mine = own(study)
        mine = mine[mine["metric"] == name].drop_duplicates("run", keep="last")
        rows = rows.merge(mine[["run", "weights", "count"]])
    else:
        rows = rows.drop_duplicates("run", keep="last")
    return rows[rows["run"].isin(distances(study)["run"])]


def sampling_sd(study: Study, variant: str) -> float:
    """The standard deviation between sample sets of one model, pooled over the variant's runs; NaN
    where none has repeats."""
    table, repeats = distances(study), companions(study, "repeat")
    sets = pd.concat([table[["run", "variant", "value"]], repeats[["run", "variant", "value"]]])
    sets = sets[sets["variant"] == variant]
    variances = sets.astype({"value": float}).groupby("run")["value"].var(ddof=1)
    return float(variances.mean() ** 0.5)


def floor(study: Study) -> tuple[str, float] | None:
    """The label and value of real held-out images' distance; None where runs differ in it."""
    rows = companions(study, "floor")
    if rows.empty or rows["metric"].nunique() > 1 or np.ptp(rows["value"].astype(float)) > 1e-6:
        return None
    return str(rows["metric"].iloc[0]), float(rows["value"].iloc[0])


def floor_statement(study: Study) -> str:
    """The floor in words; nothing where there is none, or several."""
    try:
        found = floor(study)
    except NothingToShow:
        return ""
    return f"Real held-out images have {found[0]} {found[1]:.3g}: the floor." if found else ""


def distances(study: Study) -> pd.DataFrame:
    """One row a run with a distance: ``run``, ``variant``, ``seed``, ``value``, ``tuned``.

    Where the study tunes an axis, only each variant's own best point (lowest mean over seeds) is
    here, and ``tuned`` names it, else it is empty. The point is chosen on the very seeds that are
    compared, so the intervals are optimistic.

    Raises:
        NothingToShow: before the first evaluation.
    """
    rows = own(study)
    rows = rows[rows["metric"] == label(study)].drop_duplicates("run", keep="last")
    rows = rows[np.isfinite(rows["value"].astype(float))]
    table: pd.DataFrame = rows[["run", "variant", "seed", "value"]].reset_index(drop=True)
    points = study.runs.set_index("run")[list(study.tune)]
    words = {
        run: ", ".join(f"{str(key).removeprefix('tune.')} {value}" for key, value in point.items())
        for run, point in points.to_dict("index").items()
    }
    table["tuned"] = [words[run] for run in table["run"]]
    best = table.groupby("variant", observed=True, sort=False).apply(_best_point)
    return table[table["tuned"] == table["variant"].astype(str).map(best)].reset_index(drop=True)


def _best_point(runs: pd.DataFrame) -> str:
    """Among the points that have the most seeds."""
    points = runs.groupby("tuned")["value"].agg(["size", "mean"])
    return str(points.loc[points["size"] == points["size"].max(), "mean"].idxmin())


def chosen(study: Study) -> pd.DataFrame:
    """The rows of ``runs`` that stand for their variants: without those tuned out."""
    if not study.tune:
        return study.runs
    try:
        table = distances(study)
    except NothingToShow:
        return study.runs
    out = study.runs["variant"].isin(table["variant"]) & ~study.runs["run"].isin(table["run"])
    return study.runs[~out]


def incomparable(study: Study) -> list[str]:
    """Why some distances may not stand beside each other, in words; nothing when all may."""
    name = label(study)
    rows = own(study).drop_duplicates(["run", "metric"], keep="last")
    judged = rows[rows["metric"] == name]
    reasons = [
        f"{run} has {', '.join(group['metric'])} but not {name}: left out"
        for run, group in rows.groupby("run", sort=False)
        if name not in set(group["metric"])
    ]
    reasons += [
        f"{run}: its {name} is not a number: left out"
        for run in judged["run"][~np.isfinite(judged["value"].astype(float))]
    ]
    for key in ("weights", "reference.hash", "reference.split", "count"):
        if key in judged and judged[key].nunique(dropna=False) > 1:
            found = ", ".join(map(str, judged[key].unique()))
            reasons.append(f"the runs' distances differ in {key} ({found}): not comparable")
    return reasons


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


def statements(study: Study) -> list[str]:
    """What may be concluded, a sentence each: the ladder's end and each modulation.

    ``E-all has FD-digits@1000 lower by 4.8 [1.6, 8] than A-none (12 % [4, 20]; …, 2 seeds).``
    """
    try:
        table, name = distances(study), title(study)
    except NothingToShow as nothing:
        return [f"{str(nothing).capitalize()}."]
    pairs = [(group.variants[-1], group.baseline) for group in ladder(study)]
    pairs += [(v, group.baseline) for group in modulation(study) for v in group.variants[1:]]
    pairs += [(v, group.baseline) for group in others(study) for v in group.variants[1:]]
    return [
        statement(variant, baseline, name, *paired(table, variant, baseline))
        for variant, baseline in _distinct(pairs)
        if variant != baseline
    ]


def _distinct(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(pairs))


def statement(
    variant: str, baseline: str, name: str, values: pd.Series[float], others: pd.Series[float]
) -> str:
    """One comparison in words: the difference with its interval, and what share that is."""
    difference = statistics.difference(values, others)
    change = statistics.relative_change(values, others)
    if difference.n == 0:
        return f"{variant} and {baseline} have no seed in common yet."
    word, sign = ("lower", -1) if difference.value < 0 else ("higher", 1)
    said = f"{variant} has {name} {word} by {abs(difference.value):.3g}"
    share = f"{100 * abs(change.value):.1f} %"
    if difference.n == 1:
        return (
            f"{said} than {baseline} ({share}; 1 seed): "
            "one seed gives no interval, so nothing can be concluded."
        )
    if math.isfinite(change.low):  # else the baseline itself cannot be told from zero
        share += f" {_interval(100 * sign * change.low, 100 * sign * change.high, '.1f')}"
    bounds = _interval(sign * difference.low, sign * difference.high, ".3g")
    said += f" {bounds} than {baseline} ({share}; 95 % intervals, {difference.n} seeds)"
    if difference.includes_zero:
        return f"{said}: the interval includes zero, so these seeds do not tell the two apart."
    return f"{said}."


def _interval(one_end: float, other_end: float, form: str) -> str:
    low, high = sorted((one_end, other_end))
    return f"[{low:{form}}, {high:{form}}]".replace("-", "−")
