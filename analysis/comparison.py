"""Who is compared with whom, and by which number.

Derived from the configs, never from names. Within a comparison the first variant in grid order is
the baseline; where a study has several model sizes or data sets, each has its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from analysis import effects, levels, statistics, tuning
from analysis.distances import label as label
from analysis.distances import of_runs, repeats
from analysis.distances import own as own
from analysis.distances import title as title
from analysis.paired import Difference
from analysis.paired import average as average
from analysis.paired import differences as paired_differences
from analysis.paired import paired as paired
from analysis.paired import values as values
from analysis.study import NothingToShow, Study

CONDITIONING = ["model.conditioning", "model.final_conditioning"]
SETTING = ["model", "data.name"]
MEASURED = ("weights", "count", "reference.hash", "reference.split")
"""With the settings of sampling what must be the same for distances to be compared ..."""
OWN = ("sampling.seed", "sampling.ema_error", "sampling.snapshot")
"""... save what each run has of its own."""
MANY = 12
"""More sentences than this are not read."""


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


def groups(study: Study) -> list[Comparison]:
    """All of the three."""
    return [*ladder(study), *modulation(study), *others(study)]


def pairs(study: Study) -> list[tuple[str, str]]:
    """Every variant and each baseline that it is held against, in the tables' order."""
    found = [(v, group.baseline) for group in groups(study) for v in group.variants[1:]]
    return list(dict.fromkeys(found))


def steps(group: Comparison, flags: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """(before, after) for each step of a ladder: a variant with all flags of the last, and more.

    Variants that add to none before them are no step; nothing where fewer than two steps are.
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
    groups: dict[tuple[object, ...], list[str]] = {}
    for variant, *key in designs[keys].itertuples(name=None):
        groups.setdefault(tuple(key), []).append(str(variant))
    return [Comparison(tuple(group)) for group in groups.values()]


def companions(study: Study, role: str) -> pd.DataFrame:
    """The same distance in another role (limit, repeat, floor), also of another count.

    One row an evaluation of the runs that stand for their variants; of the repeats, those whose
    extractor and count are the run's own.
    """
    if role == "repeat":
        rows = repeats(study)
    else:
        rows = study.evaluations[study.evaluations["role"] == role]
        rows = rows[rows["metric"].str.split("@").str[0] == label(study).split("@")[0]]
        rows = rows.drop_duplicates("run", keep="last")
    return rows[rows["run"].isin(distances(study)["run"])]


def sampling_sd(study: Study) -> pd.Series[float]:
    """By variant, the standard deviation between sample sets of one model, pooled over its runs.

    NaN where none has repeats.
    """
    columns = ["run", "variant", "value"]
    sets = pd.concat([distances(study)[columns], companions(study, "repeat")[columns]])
    by_run = sets.astype({"value": float}).groupby(["variant", "run"], observed=True)["value"]
    return by_run.var(ddof=1).groupby("variant", observed=True).mean() ** 0.5


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
    """One row a variant and seed: ``run``, ``variant``, ``seed``, ``metric``, ``value``, ``tuned``.

    Where the study tunes an axis, the run is at the variant's own best point, which ``tuned`` names
    and which was chosen among ``points`` (1: no choice), without this distance wherever that can
    be (:mod:`analysis.tuning`).

    Raises:
        NothingToShow: before the first evaluation.
    """
    picked = tuning.choose(study).rename(columns={"point": "tuned"})
    picked = picked.assign(metric=label(study))
    return picked[["run", "variant", "seed", "metric", "value", "tuned", "points"]]


def chosen(study: Study) -> pd.DataFrame:
    """The rows of ``runs`` that are shown for their variants: all at the best point of the tune
    axes by all seeds."""
    if not study.tune:
        return study.runs
    try:
        points, best = of_runs(study).set_index("run")["point"], tuning.best(study)
    except NothingToShow:
        return study.runs
    runs = study.runs
    out = runs["variant"].isin(best.index) & (
        runs["run"].map(points).astype(object) != runs["variant"].astype(object).map(best)
    )
    return runs[~out]


def incomparable(study: Study) -> list[str]:
    """Why some distances may not stand beside each other, in words; nothing when all may."""
    name = label(study)
    rows = own(study).drop_duplicates(["run", "metric"], keep="last")
    distance = judged(study)
    reasons = [
        f"{run} has {', '.join(group['metric'])} but not {name}: left out"
        for run, group in rows.groupby("run", sort=False)
        if name not in set(group["metric"])
    ]
    reasons += [
        f"{run}: its {name} is not a number: left out"
        for run in distance["run"][~np.isfinite(distance["value"].astype(float))]
    ]
    return reasons + [
        f"the runs' distances differ in {key} ({', '.join(found)}): not comparable"
        for key, found in differing(study).items()
    ]


def judged(study: Study) -> pd.DataFrame:
    """The evaluations by which the runs are judged, one row a run.

    Raises:
        NothingToShow: before the first evaluation.
    """
    rows = own(study)
    return rows[rows["metric"] == label(study)].drop_duplicates("run", keep="last")


def differing(study: Study) -> dict[str, list[str]]:
    """In which settings of measuring the runs' distances differ, and the values.

    Raises:
        NothingToShow: before the first evaluation.
    """
    rows = judged(study)
    settings = [key for key in map(str, rows) if key in MEASURED or key.startswith("sampling.")]
    found = {key: list(rows[key].map(levels.text).unique()) for key in settings if key not in OWN}
    return {key: values for key, values in found.items() if len(values) > 1}


def differences(study: Study) -> dict[tuple[str, str], Difference]:
    """All of :func:`pairs`; p is corrected for all of them, so that it is one in all tables.

    Raises:
        NothingToShow: before the first evaluation.
    """
    found = pairs(study)
    return dict(zip(found, paired_differences(distances(study), found), strict=True))


def statements(study: Study) -> list[str]:
    """What may be concluded, a sentence each: the ladder's end and each modulation.

    ``E-all has FD-digits@1000 lower by 4.8 [1.6, 8] than A-none (12 % [4, 20]; …, 2 seeds).``
    Of a grid with more comparisons than :data:`MANY`, what its factors do; where it crosses none,
    the first, and how many more there are.
    """
    try:
        found, name = differences(study), title(study)
    except NothingToShow as nothing:
        return [f"{str(nothing).capitalize()}."]
    ends = [(group.variants[-1], group.baseline) for group in ladder(study)]
    rest = [*modulation(study), *others(study)]
    ends += [(v, group.baseline) for group in rest for v in group.variants[1:]]
    ends = [end for end in dict.fromkeys(ends) if end in found]
    if len(ends) > MANY:
        with suppress(NothingToShow):
            return effect_statements(factorial(study), name)
    said = [statement(*end, name, found[end], len(found)) for end in ends[:MANY]]
    if further := ends[MANY:]:
        clear = sum(is_conclusive(found[end]) for end in further)
        said.append(
            f"Of {len(further)} further comparison{'s' * (len(further) > 1)}, in the tables, "
            f"{clear or 'none'} {'is' if clear == 1 else 'are'} conclusive after Holm's correction."
        )
    return said


def is_conclusive(found: Difference) -> bool:
    """Whether zero is excluded, and among all comparisons too (Holm)."""
    return not found.absolute.includes_zero and found.p_holm < 1 - statistics.CONFIDENCE


def effect_statements(found: effects.Factorial, name: str) -> list[str]:
    """The main effects that are told from zero among all of them, and how many are not.

    Raises:
        NothingToShow: where none can be told from the interactions.
    """
    main = [effect for effect in found.effects if len(effect.factors) == 1]
    both = [effect for effect in found.effects if len(effect.factors) == 2]
    if not main:
        raise NothingToShow("no main effect can be told from the interactions")
    clear = [effect for effect in main if effect.p_holm < 1 - statistics.CONFIDENCE]
    clear.sort(key=lambda effect: -abs(effect.estimate.value))
    said = [_effect(effect, name) for effect in clear]
    told = sum(effect.p_holm < 1 - statistics.CONFIDENCE for effect in both)
    return [
        *said,
        f"Of {len(main)} main effects {len(clear)}, and of {len(both)} interactions of two factors "
        f"{told} differ from zero after Holm's correction ({main[0].estimate.n:,} runs).",
    ]


def _effect(effect: effects.Effect, name: str) -> str:
    """``mp_silu has FD lower by 1.95 [1.88, 2.02], over all settings of the other factors.``"""
    estimate = effect.estimate
    word, sign = ("lower", -1) if estimate.value < 0 else ("higher", 1)
    bounds = _interval(sign * estimate.low, sign * estimate.high, ".3g")
    return (
        f"{effects.name(effect.factors, effect.levels)} has {name} {word} by "
        f"{abs(estimate.value):.3g} {bounds}, over all settings of the other factors."
    )


def statement(variant: str, baseline: str, name: str, found: Difference, comparisons: int) -> str:
    """One of so many comparisons in words: the difference with its interval, and its share."""
    difference, change = found.absolute, found.relative
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
    if not is_conclusive(found):
        return (
            f"{said}: the interval excludes zero, but among {comparisons} comparisons one may by "
            f"chance (p = {found.p_holm:.2g}, Holm), so it is no conclusion."
        )
    return f"{said}."


def _interval(one_end: float, other_end: float, form: str) -> str:
    low, high = sorted((one_end, other_end))
    return f"[{low:{form}}, {high:{form}}]".replace("-", "−")
