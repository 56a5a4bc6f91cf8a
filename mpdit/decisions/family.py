"""The verdict on every comparison of a study, corrected for all of them.

A comparison is between a variant and its baseline. Its statistic is the difference of their means
over seeds, with variances moderated across the study's variants (`mpdit.decisions.moderation`).
Where one of the two has a variance visibly larger than the others', it is the plain paired t.

The family is corrected by Bonferroni's inequality: p is multiplied by the number of comparisons,
and the interval has the level that belongs to it. An interval excludes "no difference" exactly
where p is below 0.05, and all intervals of a study hold together in 95 % of studies. (The intervals
of six comparisons are 3 % wider than Dunnett's. Holm's procedure has more power, but its intervals
only give the sign.)

The moderated statistic is not paired by seed. Seeds that move all variants alike make its intervals
too wide, never too narrow. In three repetitions of the quickstart, pairing multiplied the standard
deviation of a difference by 0.3 to 1.4 (median 0.8), and it costs half of the degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from mpdit.decisions.failures import outliers
from mpdit.decisions.looks import nominal_level
from mpdit.decisions.moderation import Moderated, moderate, welch

LEVEL = 0.05
LEAST_SEEDS = 3
"""The fewest seeds for a verdict; with fewer, a comparison is preliminary."""

Scale = Literal["ratio", "difference"]
Verdict = Literal["better", "worse", "equivalent", "undecided"]
Pair = tuple[str, str]
"""A variant and its baseline."""


@dataclass(frozen=True)
class Rules:
    """The rules that a study declares before it starts.

    Attributes:
        scale: whether two values are compared by their ratio or their difference.
        lower_is_better: whether a lower value of the metric is better.
        margin: the smallest change that matters: a fraction for ratios (0.05: from 1/1.05 to
            1.05), a number in the metric's unit for differences. 0: every change matters.
        looks: the numbers of seeds at which decisions are made, rising; empty for one decision on
            whatever seeds there are.
    """

    scale: Scale = "ratio"
    lower_is_better: bool = True
    margin: float = 0.0
    looks: tuple[int, ...] = ()

    def inner(self, value: float) -> float:
        """An effect on the scale of the statistics: log ratio or difference."""
        return math.log(value) if self.scale == "ratio" else value

    def outer(self, value: float) -> float:
        """The effect as it is reported: ratio or difference."""
        return math.exp(min(value, 700.0)) if self.scale == "ratio" else value

    @property
    def inner_margin(self) -> float:
        return math.log1p(self.margin) if self.scale == "ratio" else self.margin


@dataclass(frozen=True)
class Decision:
    """The decision on a comparison.

    Attributes:
        effect: the variant's mean over (or less) the baseline's; ``low`` and ``high`` are its
            simultaneous interval. NaN where there are too few runs.
        p: corrected for the family and the looks; below 0.05 exactly where the interval excludes
            no difference.
        seeds, baseline_seeds: runs with a value. failed, baseline_failed: runs without.
        se, degrees, level: of the estimate on the inner scale (`Rules.inner`), the degrees of
            freedom of its t statistic, and the two-sided level of its interval.
        is_paired: whether the interval is that of a plain paired t test.
        reason: why there is no verdict, in words; empty where the interval shows it.
    """

    variant: str
    baseline: str
    verdict: Verdict
    effect: float
    low: float
    high: float
    p: float
    seeds: int
    baseline_seeds: int
    failed: int
    baseline_failed: int
    se: float = math.nan
    degrees: float = math.nan
    level: float = math.nan
    is_paired: bool = False
    reason: str = ""

    @property
    def is_open(self) -> bool:
        return self.verdict == "undecided"


@dataclass(frozen=True)
class Family:
    """The decisions of a study.

    Attributes:
        decisions: by comparison, in the requested order.
        described: further estimates that were requested, with intervals as wide as the
            comparisons'. The family does not correct for them: do not use their p and verdict.
        wanted: variant of an open comparison → how many seeds it needs at the next look. Empty
            without a schedule of looks, after the last look, and where all is decided.
        outliers: variant → the seeds whose finite values count as failures.
        larger: variants whose variance is visibly larger than the others' at the last look, with
            the p of that check: their comparisons have plain paired t intervals.
    """

    rules: Rules
    decisions: Mapping[Pair, Decision]
    described: Mapping[Pair, Decision]
    wanted: Mapping[str, int]
    outliers: Mapping[str, tuple[int, ...]]
    larger: Mapping[str, float] = field(default_factory=dict)

    @property
    def open(self) -> list[Pair]:
        return [pair for pair, decision in self.decisions.items() if decision.is_open]


Outcomes = Mapping[str, Mapping[int, float | None]]
"""Variant → seed → value, in the declared order of the seeds. NaN: the run failed. None: the run
has not ended."""


def decide(
    outcomes: Outcomes,
    pairs: Sequence[Pair],
    rules: Rules,
    widened: Mapping[Pair, float] | None = None,
    described: Sequence[Pair] = (),
) -> Family:
    """Decide each pair (variant, baseline).

    With looks, the decisions of every look are made again in their order, from the runs that the
    look had: a verdict, once reached, does not change with later seeds. A look happens when all
    runs of its open comparisons have ended; before the first look, decisions are preliminary.

    Args:
        widened: pair → a factor on the standard error, where values are not independent. The seeds
            of a variant that was tuned on other seeds are independent.
        described: further pairs to estimate (see `Family`).
    """
    pairs = list(dict.fromkeys(pairs))
    beside = [pair for pair in dict.fromkeys(described) if pair not in pairs]
    level = nominal_level(rules.looks, LEVEL / max(1, len(pairs)))
    wide = widened or {}
    if not rules.looks:
        return _at(_Runs.of(outcomes, rules), pairs, beside, rules, level, wide)
    settled: dict[Pair, Decision] = {}
    used: dict[str, int] = {}
    family: Family | None = None
    for number, look in enumerate(rules.looks):
        open_ = [pair for pair in pairs if pair not in settled]
        names = dict.fromkeys(name for pair in open_ for name in pair)
        is_due = all(_ended(outcomes.get(name, {})) >= look for name in names)
        if not is_due and family is not None:
            break
        used |= dict.fromkeys(names, look)
        taken = {v: dict(islice(outcomes.get(v, {}).items(), n)) for v, n in used.items()}
        family = _at(_Runs.of(taken, rules), pairs, beside, rules, level, wide)
        decisions = {**family.decisions, **settled}
        if not is_due:
            waiting = {pair: _waiting(decisions[pair], look) for pair in open_}
            return replace(family, decisions=waiting, wanted=dict.fromkeys(names, look))
        settled |= {pair: decisions[pair] for pair in open_ if not decisions[pair].is_open}
        later = rules.looks[number + 1 :]
        open_ = [pair for pair in pairs if pair not in settled]
        wanted = {name: later[0] for pair in open_ for name in pair} if later else {}
        family = replace(family, decisions=decisions, wanted=wanted)
        if not open_:
            break
    assert family is not None
    return family


def _ended(found: Mapping[int, float | None]) -> int:
    """The number of ended seeds before the first seed that has not ended."""
    return next((i for i, value in enumerate(found.values()) if value is None), len(found))


def _waiting(decision: Decision, look: int) -> Decision:
    words = f"preliminary: the first look is at {look} seeds"
    return replace(decision, verdict="undecided", reason=words)


@dataclass(frozen=True)
class _Runs:
    """The finite values on the inner scale, by variant and seed, and how many runs failed."""

    values: dict[str, dict[int, float]]
    failed: dict[str, int]
    outliers: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, outcomes: Outcomes, rules: Rules) -> _Runs:
        ended = {
            variant: {seed: value for seed, value in found.items() if value is not None}
            for variant, found in outcomes.items()
        }
        seeds = {variant: list(found) for variant, found in ended.items()}
        arrays = {v: np.array(list(found.values()), dtype=float) for v, found in ended.items()}
        if rules.scale == "ratio":
            arrays = {variant: np.log(found) for variant, found in arrays.items()}
        sign = 1 if rules.lower_is_better else -1
        beyond = outliers({variant: sign * found for variant, found in arrays.items()})
        values, failed, far = {}, {}, {}
        for variant, found in arrays.items():
            kept = np.isfinite(found) & ~beyond[variant]
            rows = zip(seeds[variant], found.tolist(), kept, strict=True)
            values[variant] = {seed: value for seed, value, is_kept in rows if is_kept}
            failed[variant] = int((~kept).sum())
            if names := tuple(s for s, b in zip(seeds[variant], beyond[variant], strict=True) if b):
                far[variant] = names
        return cls(values, failed, far)


def _at(
    runs: _Runs,
    pairs: Sequence[Pair],
    described: Sequence[Pair],
    rules: Rules,
    level: float,
    widened: Mapping[Pair, float],
) -> Family:
    """The decisions on these runs, each with an interval of the two-sided ``level``."""
    arrays = {variant: np.array(list(found.values())) for variant, found in runs.values.items()}
    spread = [variant for variant, found in arrays.items() if len(found) > 1]
    moderated = (
        moderate(
            np.array([arrays[variant].var(ddof=1) for variant in spread]),
            np.array([len(arrays[variant]) - 1.0 for variant in spread]),
        )
        if spread
        else None
    )
    place = {variant: index for index, variant in enumerate(spread)}
    larger = (
        {}
        if moderated is None
        else {
            name: float(moderated.p_larger[i])
            for name, i in place.items()
            if moderated.is_larger[i]
        }
    )
    decisions = {}
    for pair in (*pairs, *described):
        variant, baseline = pair
        mine, theirs = (runs.values.get(name, {}) for name in pair)
        found = Decision(
            variant, baseline, "undecided", math.nan, math.nan, math.nan, math.nan,
            seeds=len(mine), baseline_seeds=len(theirs),
            failed=runs.failed.get(variant, 0), baseline_failed=runs.failed.get(baseline, 0),
            level=level, is_paired=not larger.keys().isdisjoint(pair),
        )  # fmt: skip
        estimate = (
            _paired(mine, theirs) if found.is_paired else _unpaired(arrays, pair, place, moderated)
        )
        decisions[pair] = _judge(found, estimate, rules, widened.get(pair, 1.0))
    beside = {pair: decisions.pop(pair) for pair in described}
    return Family(rules, decisions, beside, {}, runs.outliers, larger)


Estimate = tuple[float, float, float]
"""A difference on the inner scale, its standard error and degrees of freedom."""


def _unpaired(
    arrays: Mapping[str, np.ndarray],
    pair: Pair,
    place: Mapping[str, int],
    moderated: Moderated | None,
) -> Estimate:
    mine, theirs = (arrays.get(name, np.empty(0)) for name in pair)
    if not len(mine) or not len(theirs):
        return math.nan, math.nan, math.nan
    value = float(mine.mean() - theirs.mean())
    if moderated is None or not all(name in place for name in pair):
        return value, math.nan, math.nan
    first, second = (place[name] for name in pair)
    variance, degrees = welch(
        moderated.variances[first] / len(mine), moderated.degrees[first],
        moderated.variances[second] / len(theirs), moderated.degrees[second],
    )  # fmt: skip
    return value, float(variance) ** 0.5, min(float(degrees), moderated.total)


def _paired(mine: Mapping[int, float], theirs: Mapping[int, float]) -> Estimate:
    found = np.array([mine[seed] - theirs[seed] for seed in mine if seed in theirs])
    if len(found) < 2:
        value = float(found.mean()) if len(found) else math.nan
        return value, math.nan, math.nan
    return float(found.mean()), float(found.std(ddof=1)) / len(found) ** 0.5, len(found) - 1.0


def _judge(found: Decision, estimate: Estimate, rules: Rules, widened: float) -> Decision:
    value, se, degrees = estimate
    if math.isnan(value):
        return replace(found, reason=_nothing(found))
    effect = rules.outer(value)
    if math.isnan(se):
        return replace(found, effect=effect, reason="one seed gives no interval")
    se *= widened
    half = -float(stdtrit(degrees, found.level / 2)) * se
    low, high = value - half, value + half
    found = replace(
        found, effect=effect, low=rules.outer(low), high=rules.outer(high), se=se, degrees=degrees,
        p=min(1.0, _p(value, se, degrees) * LEVEL / found.level),
    )  # fmt: skip
    if min(found.seeds, found.baseline_seeds) < LEAST_SEEDS:
        return replace(found, reason=f"preliminary: fewer than {LEAST_SEEDS} seeds")
    verdict = verdict_of(low, high, rules)
    if against := failures_against(verdict, found):
        return replace(found, reason=against)
    return replace(found, verdict=verdict)


def _nothing(found: Decision) -> str:
    """Why a comparison has no values, in words."""
    for name, seeds, failed in (
        (found.variant, found.seeds, found.failed),
        (found.baseline, found.baseline_seeds, found.baseline_failed),
    ):
        if failed and not seeds:
            return f"all {failed} runs of {name} that have ended failed"
    return "no runs with a value to compare yet"


def _p(value: float, se: float, degrees: float) -> float:
    if not se:
        return 0.0 if value else 1.0
    return float(2 * stdtr(degrees, -abs(value) / se))


def verdict_of(low: float, high: float, rules: Rules) -> Verdict:
    """The verdict of an interval on the inner scale."""
    margin = rules.inner_margin
    if -margin < low and high < margin:
        return "equivalent"
    if low > 0 or high < 0:
        return "better" if (high < 0) == rules.lower_is_better else "worse"
    return "undecided"


def failures_against(verdict: Verdict, found: Decision) -> str:
    """Explain why failed runs prevent a verdict that the finite values reach; '' if none do.

    A failed run is worse than any value, so the values of the remaining runs may look too good.
    """
    lost, ours = found.failed, found.failed + found.seeds
    theirs_lost, theirs = found.baseline_failed, found.baseline_failed + found.baseline_seeds
    more = lost * theirs - theirs_lost * ours
    agrees = (verdict == "better" and more <= 0) or (verdict == "worse" and more >= 0)
    if not more or agrees or verdict == "undecided":
        return ""
    return (
        f"the runs with a value look {verdict}, but {lost} of {ours} runs of the variant and "
        f"{theirs_lost} of {theirs} of the baseline failed"
    )
