"""How many runs a staged study will need: at least, at most, and expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mpdit.decisions.criteria import rules
from mpdit.decisions.family import decide
from mpdit.decisions.planning import expected_seeds
from mpdit.grid.plan import Plan
from mpdit.grid.stages import Stage, pairs


@dataclass(frozen=True)
class Forecast:
    """Numbers of runs by variant, including those that have ended."""

    least: Mapping[str, float]
    expected: Mapping[str, float]
    most: Mapping[str, float]


def forecast(plan: Plan, stage: Stage) -> Forecast:
    """How many runs a study will need in all, given its present stage. The expected number assumes
    that no range is extended."""
    looks, tuning = plan.grid.declared.looks, frozenset(plan.grid.declared.tuning)
    points: dict[str, dict[tuple[object, ...], bool]] = {}
    for run in plan.runs:
        points.setdefault(run.variant, {})[tuple(run.tune.values())] = run.is_beyond
    had = dict.fromkeys(points, 0)
    compared = dict.fromkeys(points, 0)
    for run in stage.runs:
        (had if run.seed in tuning else compared)[run.variant] += 1
    family = stage.family
    if family is None and looks:
        declared = {"looks": looks, "margin": 0.0}
        family = decide({}, pairs(plan), rules("", None, True, declared))
    hoped = expected_seeds(family) if family is not None else {}
    beyond = sum(max(len(axis.before), len(axis.after)) for axis in plan.grid.tune)
    least, expected, most = {}, {}, {}
    for variant, of in points.items():
        inner = sum(not is_beyond for is_beyond in of.values())
        race = _race(inner, len(tuning)) if inner > 1 else 0
        first = last = compared[variant] or (looks[0] if looks else len(plan.grid.seeds))
        if looks and variant in hoped:
            last = looks[-1]
        tuned = stage.kind in ("tuning", "extension")
        extra = beyond * len(tuning) if race and len(of) > inner else 0
        spent = max(race, had[variant])
        least[variant] = spent + first
        expected[variant] = spent + max(first, hoped.get(variant, first))
        most[variant] = (max(spent, race + extra) if tuned else spent) + last
    return Forecast(least, expected, most)


def _race(points: int, seeds: int) -> int:
    """The runs of a race (`mpdit.decisions.racing`)."""
    runs = 0
    for _ in range(seeds):
        runs, points = runs + points, -(-points // 2)
    return runs
