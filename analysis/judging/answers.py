"""What a study's runs answer: one verdict a comparison, the same wherever it is shown.

A grid that crosses axes is asked what each factor does: its comparisons are the main effects. Any
other study compares each variant with its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Answer:
    """One comparison of the study.

    Attributes:
        effect, low, high: the variant's mean over (scale ratio) or less (difference) the
            baseline's, with its simultaneous interval; NaN where there is none.
        seeds: with a value, of the variant or its baseline, whichever has fewer. failed: runs
            without a value, of both.
        p: corrected for all comparisons.
        more_seeds: how many more of each would settle it with a chance of 80 %; None where it is
            settled, or where no number is known.
        reason: what hinders a verdict, in words.
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

    @property
    def is_open(self) -> bool:
        return self.verdict == "undecided"


@once
def outcomes(study: Study) -> Outcomes:
    """Variant → seed → value: NaN of a run that failed, None of one that has not ended."""
    runs = study.runs[["variant", "seed", "diverged", "state"]].astype({"variant": str})
    runs = runs[~runs["seed"].isin(tuning.seeds_apart(study))]
    ended = runs["diverged"] | (runs["state"] == "done")
    # of a tuned variant a seed has several runs, and has failed when all have
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
    """The decisions on `comparison.pairs`, and the estimates of the ladder's other steps.

    Raises:
        NothingToShow: before the first evaluation.
    """
    table = comparison.distances(study)
    asked, steps = comparison.pairs(study), comparison.steps(study)
    points = table.groupby(table["variant"].astype(str))["points"].max().to_dict()
    seeds = table.groupby(table["variant"].astype(str))["seed"].nunique().to_dict()
    widened = {
        pair: tuning.widening(min(seeds[v] for v in pair), *(points[v] for v in pair))
        for pair in (*asked, *steps)
        if all(v in points for v in pair) and max(points[v] for v in pair) > 1
    }
    found = decide(outcomes(study), asked, distances.rules(study), widened, steps)
    unlike = _unlike(study)

    return replace(
        found,
        decisions={pair: _barred(d, unlike(pair)) for pair, d in found.decisions.items()},
        described={pair: _barred(d, unlike(pair)) for pair, d in found.described.items()},
    )


def _barred(found: Decision, reason: str) -> Decision:
    """The decision, without a verdict and numbers where there is a reason against them."""
    if not reason:
        return found
    nan = math.nan
    return replace(
        found, verdict="undecided", reason=reason,
        effect=nan, low=nan, high=nan, p=nan, se=nan, degrees=nan,
    )  # fmt: skip


def _unlike(study: Study) -> Callable[[Pair], str]:
    """A function: pair → why its distances cannot be compared, in words; '' where they can."""
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
    """Whether the study asks for its factors' effects: its variants are made by axes alone."""
    if "named" in study.runs and study.runs["named"].notna().any():
        return False
    try:
        comparison.factorial(study).of(1)
    except NothingToShow:
        return False
    return not comparison.differing(study)


@once
def answers(study: Study) -> list[Answer]:
    """One a comparison of the study, in its tables' order.

    Raises:
        NothingToShow: before the first evaluation.
    """
    rules = distances.rules(study)
    if is_crossed(study):
        main = comparison.factorial(study).of(1)
        return [_of_effect(study, effect, rules) for effect in main]
    return [of_decision(decision, rules) for decision in family(study).decisions.values()]


def of_decision(found: Decision, rules: Rules) -> Answer:
    """A decision as an answer."""
    seeds = min(found.seeds, found.baseline_seeds)
    wanted = needed(found, rules) if found.is_open else None
    return Answer(
        found.variant, found.baseline, found.verdict, found.effect, found.low, found.high,
        rules.scale, seeds, found.failed + found.baseline_failed, found.p,
        more_seeds=None if wanted is None else wanted - seeds, reason=found.reason,
    )  # fmt: skip


def _of_effect(study: Study, effect: Effect, rules: Rules) -> Answer:
    """A main effect as an answer. Its seeds are those of the grid's cells."""
    value, low, high = (
        rules.outer(bound)
        for bound in (effect.estimate.value, effect.estimate.low, effect.estimate.high)
    )
    outcome = outcomes(study)
    seeds = max(sum(v is not None and v == v for v in of.values()) for of in outcome.values())
    failed = sum(v is not None and v != v for of in outcome.values() for v in of.values())
    verdict: Verdict = "undecided"
    reason = dependence_words(effect, rules)
    if not np.isfinite(effect.estimate.half_width):
        reason = "no degrees of freedom are left for an interval"
    elif not reason:
        verdict = verdict_of(effect.estimate.low, effect.estimate.high, rules)
    more = None
    if verdict == "undecided" and not reason:
        degrees, margin = comparison.factorial(study).degrees, rules.inner_margin
        wanted = seeds_needed(
            effect.estimate.value, effect.se, degrees, effect.level, seeds, margin
        )
        more = None if wanted is None else wanted - seeds
    return Answer(
        effects.name(effect.factors, effect.levels) + where_words(effect),
        effects.name(effect.factors, effect.first), verdict, value, low, high, rules.scale,
        seeds, failed, effect.p, more, reason,
    )  # fmt: skip


def where_words(effect: Effect) -> str:
    """``, where weight_normalization`` of an effect that exists at some settings only."""
    words = [
        " or ".join(effects.name((factor,), (level,)) for level in found)
        for factor, found in effect.where.items()
    ]
    return f", where {' and '.join(words)}" if words else ""


def dependence_words(effect: Effect, rules: Rules) -> str:
    """What interactions that cross the effect make of it, in words; '' where none do."""
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
    """One row a variant with failed runs: ``variant``, ``failed``, ``of`` (ended), ``outliers``."""
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
