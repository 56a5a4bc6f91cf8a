"""What may be concluded from a study, in sentences."""

from __future__ import annotations

import math
from contextlib import suppress

from analysis.judging import comparison, distances, effects
from analysis.judging.paired import Difference
from analysis.study import NothingToShow, Study

MANY = 12
"""The largest number of sentences that people read."""


def statements(study: Study) -> list[str]:
    """What may be concluded, a sentence each: the ladder's end and each modulation.

    ``E-all has FD-digits@1000 lower by 4.8 [1.6, 8] than A-none (12 % [4, 20]; …, 2 seeds).``
    A grid with more than :data:`MANY` comparisons has its factors' effects instead. Where it
    crosses no factors, the first comparisons and a count of the others.
    """
    try:
        found, name = comparison.differences(study), distances.title(study)
    except NothingToShow as nothing:
        reason = str(nothing)
        return [f"{reason[0].upper()}{reason[1:]}."]
    ends = [(group.variants[-1], group.baseline) for group in comparison.ladder(study)]
    rest = [*comparison.modulation(study), *comparison.others(study)]
    ends += [(v, group.baseline) for group in rest for v in group.variants[1:]]
    ends = [end for end in dict.fromkeys(ends) if end in found]
    if len(ends) > MANY:
        with suppress(NothingToShow):
            return effect_statements(comparison.factorial(study), name)
    said = [statement(*end, name, found[end], len(found)) for end in ends[:MANY]]
    if further := ends[MANY:]:
        clear = sum(found[end].is_conclusive for end in further)
        said.append(
            f"Of {len(further)} further comparison{'s' * (len(further) > 1)}, in the tables, "
            f"{clear or 'none'} {'is' if clear == 1 else 'are'} conclusive after Holm's correction."
        )
    return said


def effect_statements(found: effects.Factorial, name: str) -> list[str]:
    """The main effects that differ from zero, the largest first, and how many effects do.

    Raises:
        NothingToShow: where no main effect can be estimated.
    """
    main = found.of(1)
    both = found.effects[len(main) :]
    clear = [effect for effect in main if effect.is_conclusive]
    clear.sort(key=lambda effect: -abs(effect.estimate.value))
    return [
        *(_effect(effect, name) for effect in clear),
        f"After Holm's correction {len(clear)} of {len(main)} main effects and "
        f"{sum(effect.is_conclusive for effect in both)} of {len(both)} interactions of two "
        f"factors differ from zero ({main[0].estimate.n:,} runs).",
    ]


def _effect(effect: effects.Effect, name: str) -> str:
    """``mp_silu has FD lower by 1.95 [1.88, 2.02], over all settings of the other factors.``"""
    estimate = effect.estimate
    word, sign = _direction(estimate.value)
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
    word, sign = _direction(difference.value)
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
    if not found.is_conclusive:
        return (
            f"{said}: the interval excludes zero, but one of {comparisons} comparisons may do so "
            f"by chance (p = {found.p_holm:.2g}, Holm), so it is not conclusive."
        )
    return f"{said}."


def _direction(change: float) -> tuple[str, int]:
    return ("lower", -1) if change < 0 else ("higher", 1)


def _interval(one_end: float, other_end: float, form: str) -> str:
    low, high = sorted((one_end, other_end))
    return f"[{low:{form}}, {high:{form}}]".replace("-", "−")
