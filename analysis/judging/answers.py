"""The answers of a study: one verdict per comparison, used by all tables, figures and pages.

The comparisons of a grid that crosses axes are the main effects and the interactions of two
factors. Any other study compares each variant with its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pandas as pd

from analysis.judging import comparison, distances, effects, levels, tuning
from analysis.judging.effects import Effect
from analysis.judging.numerals import change
from analysis.study import NothingToShow, Study, once
from mpdit.decisions.family import (
    Decision,
    Family,
    Outcomes,
    Pair,
    Rules,
    Verdict,
    decide,
    verdict_of,
)
from mpdit.decisions.planning import needed, seeds_needed

APART = "no interaction"
"""The baseline of an interaction: the effects of the two factors just add up."""


@dataclass(frozen=True)
class Answer:
    """One comparison of the study.

    Attributes:
        variant, baseline: for an interaction, ``a × b`` and `APART`.
        effect, low, high: the variant's mean divided by (scale ``ratio``) or minus (``difference``)
            the baseline's, with its simultaneous interval; NaN if there is none.
        seeds: the number of seeds with a value, of the variant or its baseline, whichever has
            fewer.
        failed: the number of runs without a value, of both.
        p: corrected for all comparisons.
        more_seeds: how many more seeds of each would settle the comparison with a probability of
            80 %; None if it is settled, or if no number is known.
        reason: why there is no verdict, in words.
        label: the variant's name in figures; for an interaction, with its flags' codes.
    """

    variant: str
    baseline: str
    verdict: Verdict
    effect: float
    low: float
    high: float
    scale: str
    seeds: int
    failed: int
    p: float
    more_seeds: int | None
    reason: str
    label: str

    @property
    def is_open(self) -> bool:
        return self.verdict == "undecided"

    @property
    def is_called(self) -> bool:
        return self.verdict in ("better", "worse")

    @property
    def is_interaction(self) -> bool:
        return self.baseline == APART


@once
def outcomes(study: Study) -> Outcomes:
    """Return variant → seed → value: NaN if the run failed, None if it has not ended."""
    runs = study.runs[["variant", "seed", "diverged", "state"]].astype({"variant": str})
    runs = runs[~runs["seed"].isin(tuning.seeds_apart(study))]
    ended = runs["diverged"] | (runs["state"] == "done")
    # a seed of a tuned variant has several runs; it has failed if all of them have
    by_seed = ended.groupby([runs["variant"], runs["seed"]], sort=False).all().reset_index()
    found: dict[str, dict[int, float | None]] = {}
    for variant, seed, is_over in by_seed.itertuples(index=False):
        found.setdefault(str(variant), {})[int(seed)] = math.nan if is_over else None
    table = comparison.distances(study)
    columns = (table["variant"].astype(str), table["seed"], table["value"].astype(float))
    for variant, seed, value in zip(*columns, strict=True):
        found[variant][int(seed)] = float(value)
    return found


@once
def family(study: Study) -> Family:
    """Return the decisions on `comparison.pairs`, and the estimates of the ladder's other steps.

    Raises:
        NothingToShow: before the first evaluation.
    """
    return _family(study, outcomes(study))


def _family(study: Study, found: Outcomes) -> Family:
    table = comparison.distances(study)
    asked, steps = comparison.pairs(study), comparison.steps(study)
    points = table.groupby(table["variant"].astype(str))["points"].max().to_dict()
    seeds = table.groupby(table["variant"].astype(str))["seed"].nunique().to_dict()
    widened = {
        pair: tuning.widening(min(seeds[v] for v in pair), *(points[v] for v in pair))
        for pair in (*asked, *steps)
        if all(v in points for v in pair) and max(points[v] for v in pair) > 1
    }
    made = decide(found, asked, distances.rules(study), widened, steps)
    unlike = _unlike(study)

    return replace(
        made,
        decisions={pair: _barred(d, unlike(pair)) for pair, d in made.decisions.items()},
        described={pair: _barred(d, unlike(pair)) for pair, d in made.described.items()},
    )


def _barred(found: Decision, reason: str) -> Decision:
    """Remove the verdict and the numbers of a decision if there is a reason against them."""
    if not reason:
        return found
    nan = math.nan
    return replace(
        found, verdict="undecided", reason=reason,
        effect=nan, low=nan, high=nan, p=nan, se=nan, degrees=nan,
    )  # fmt: skip


def _unlike(study: Study) -> Callable[[Pair], str]:
    """Return a function: pair → why its distances cannot be compared, in words; '' if they can."""
    keys = list(comparison.differing(study))
    if not keys:
        return lambda _: ""
    rows = distances.judged(study)
    texts = rows[keys].map(levels.text).assign(variant=rows["variant"].astype(str))
    found = texts.drop_duplicates().set_index("variant")

    def unlike(pair: Pair) -> str:
        mine = found[found.index.isin(pair)]
        names = [key for key in keys if mine[key].nunique() > 1]
        return f"not comparable: measured with different {', '.join(names)}" if names else ""

    return unlike


@once
def is_crossed(study: Study) -> bool:
    """Whether the comparisons are effects of factors, because all variants come from axes.

    A study with looks is not crossed: the grid language refuses looks together with crossed axes.
    """
    if "named" in study.runs and study.runs["named"].notna().any():
        return False
    if study.declared.get("looks"):
        return False
    try:
        if not study.declared.get("fraction"):  # whose first runs determine no effect
            comparison.factorial(study).of(1)
        return not comparison.differing(study)
    except NothingToShow:
        return False


@once
def answers(study: Study) -> list[Answer]:
    """Return one answer per comparison of the study, in the order of its tables.

    Raises:
        NothingToShow: before the first evaluation.
    """
    rules = distances.rules(study)
    if is_crossed(study):
        found = comparison.factorial(study)
        found.of(1)  # raises before there is a main effect
        return [_of_effect(study, effect, rules) for effect in found.effects]
    return [of_decision(decision, rules) for decision in family(study).decisions.values()]


def at_looks(study: Study) -> dict[int, list[Answer]]:
    """Return the answers at each declared look so far: look (seeds) → as `answers`.

    Empty without declared looks, and for a crossed grid.

    Raises:
        NothingToShow: before the first evaluation.
    """
    rules, runs = distances.rules(study), outcomes(study)
    if not rules.looks or is_crossed(study):
        return {}
    found = {}
    for look in rules.looks:
        if look <= _last_look(study):
            taken = {variant: dict(islice(of.items(), look)) for variant, of in runs.items()}
            then = _family(study, taken).decisions.values()
            found[look] = [of_decision(decision, rules) for decision in then]
    return found


def _last_look(study: Study) -> int:
    """Return the last declared look so far (seeds); 0 before the first."""
    looks, now = distances.rules(study).looks, family(study)
    if not looks or set(now.wanted.values()) == {looks[0]}:  # the first one waits
        return 0
    return max((d.baseline_seeds + d.baseline_failed for d in now.decisions.values()), default=0)


def look_words(study: Study) -> str:
    """Return a sentence that names the look of the verdicts if later runs have ended; else ''.

    The tables' means include these later runs, and the verdicts do not.
    """
    last, wanted = _last_look(study), family(study).wanted
    ended = (sum(value is not None for value in of.values()) for of in outcomes(study).values())
    if not last or not wanted or max(ended) <= last:
        return ""
    return (
        f"Verdicts are from the look at {last} seeds. Later seeds are used at the look at "
        f"{max(wanted.values())} seeds, once all of them have ended."
    )


def of_decision(found: Decision, rules: Rules) -> Answer:
    """Make an answer from a decision."""
    seeds = min(found.seeds, found.baseline_seeds)
    wanted = needed(found, rules) if found.is_open else None
    return Answer(
        found.variant, found.baseline, found.verdict, found.effect, found.low, found.high,
        rules.scale, seeds, found.failed + found.baseline_failed, found.p,
        more_seeds=None if wanted is None else wanted - seeds, reason=found.reason,
        label=found.variant,
    )  # fmt: skip


def _of_effect(study: Study, effect: Effect, rules: Rules) -> Answer:
    """Make an answer from an effect. Its seeds are the seeds of the grid's cells."""
    value, low, high = (
        rules.outer(bound)
        for bound in (effect.estimate.value, effect.estimate.low, effect.estimate.high)
    )
    tried = _tried(study)
    seeds = int((tried["of"] - tried["failed"]).max())
    verdict: Verdict = "undecided"
    reason = dependence_words(effect, rules)
    if not np.isfinite(effect.estimate.half_width):
        reason = "no degrees of freedom are left for an interval"
    elif not reason:
        verdict = verdict_of(effect.estimate.low, effect.estimate.high, rules)
        reason = _failures_against(verdict, effect, tried)
        verdict = "undecided" if reason else verdict
    more = None
    if verdict == "undecided" and not reason:
        degrees, margin = comparison.factorial(study).degrees, rules.inner_margin
        wanted = seeds_needed(
            effect.estimate.value, effect.se, degrees, effect.level, seeds, margin
        )
        more = None if wanted is None else wanted - seeds
    return Answer(
        effects.name(effect.factors, effect.levels) + where_words(effect),
        APART if effect.is_interaction else effects.name(effect.factors, effect.first),
        verdict, value, low, high, rules.scale,
        seeds, int(tried["failed"].sum()), effect.p, more, reason,
        label=effects.label(effect),
    )  # fmt: skip


@once
def _tried(study: Study) -> pd.DataFrame:
    """Return one row per variant of a crossed grid: its level of each factor, how many runs have
    ended (``of``), and how many of these ``failed``."""
    settings, far = comparison.factors(study), family(study).outliers
    variants = study.runs.set_index("run")["variant"].astype(str)
    settings = settings.assign(variant=variants).drop_duplicates("variant").set_index("variant")
    ended = {
        name: [value for value in of.values() if value is not None]
        for name, of in outcomes(study).items()
    }
    lost = {
        name: sum(value != value for value in of) + len(far.get(name, ()))
        for name, of in ended.items()
    }
    counts = pd.DataFrame({"of": {name: len(of) for name, of in ended.items()}, "failed": lost})
    return settings.join(counts).fillna({"of": 0, "failed": 0})


def _failures_against(verdict: Verdict, effect: Effect, tried: pd.DataFrame) -> str:
    """Explain why failed runs prevent an effect's verdict; '' if none do.

    As in comparisons of two variants (`mpdit.decisions.family`), a failed run is worse than any
    value. An effect is the mean of some cells minus the mean of others; the fraction of failed runs
    is compared between the same cells.
    """
    sign = np.ones(len(tried))
    for factor, level, first in zip(effect.factors, effect.levels, effect.first, strict=True):
        sign *= np.select([tried[factor] == level, tried[factor] == first], [1.0, -1.0], 0.0)
    for factor, found in effect.where.items():
        sign *= tried[factor].isin(found)
    (lost, of), (other_lost, other_of) = (
        tried.loc[sign == side, ["failed", "of"]].sum().astype(int) for side in (1.0, -1.0)
    )
    more = lost * other_of - other_lost * of
    agrees = (verdict == "better" and more <= 0) or (verdict == "worse" and more >= 0)
    if not more or agrees or verdict == "undecided":
        return ""
    return (
        f"the runs with a value look {verdict}, but {lost} of {of} runs failed against "
        f"{other_lost} of {other_of}"
    )


def where_words(effect: Effect) -> str:
    """Return `` (where weight_normalization)`` for an effect that exists only at some settings."""
    words = [
        " or ".join(effects.name((factor,), (level,)) for level in found)
        for factor, found in effect.where.items()
    ]
    return f" (where {' and '.join(words)})" if words else ""


def dependence_words(effect: Effect, rules: Rules) -> str:
    """Describe how the effect depends on other factors; '' if it does not."""
    said = []
    for found in effect.depends:
        at = (
            change(rules.outer(value), math.nan, math.nan, rules.scale)
            + f" at {effects.name((found.factor,), (level,))}"
            for level, value in zip(found.levels, found.effects, strict=True)
        )
        said.append(f"depends on {found.factor}: {', '.join(at)}")
    return "; ".join(said)


def failures(study: Study) -> pd.DataFrame:
    """Return variants with failed runs: ``variant``, ``failed``, ``of`` (ended), ``outliers``."""
    far = family(study).outliers
    rows = []
    for variant, of in outcomes(study).items():
        ended = [value for value in of.values() if value is not None]
        outliers = far.get(variant, ())
        failed = sum(value != value for value in ended) + len(outliers)
        if failed:
            row = {"variant": variant, "failed": failed, "of": len(ended), "outliers": outliers}
            rows.append(row)
    return pd.DataFrame(rows, columns=["variant", "failed", "of", "outliers"])
