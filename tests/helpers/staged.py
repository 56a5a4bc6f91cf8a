"""Staged studies whose runs end at once, with invented distances, in memory."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping

from mpdit.decisions.family import Rules
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.grid.stages import Stage, stage_of

Truth = Callable[[PlannedRun], float]


def noisy(run: PlannedRun, mean: float, spread: float) -> float:
    """A distance with log-normal noise that belongs to the run's id."""
    return mean * math.exp(spread * random.Random(zlib.crc32(run.id.encode())).gauss(0, 1))


def stage(plan: Plan, values: Mapping[str, float]) -> Stage:
    declared = plan.grid.declared
    return stage_of(plan, values, Rules(margin=declared.margin, looks=declared.looks))


def walk(plan: Plan, truth: Truth, order: random.Random | None = None) -> list[Stage]:
    """The stages of a study until it is over. With ``order`` the runs of a stage end one by one in
    a random order, and the stage is asked for after each, as after a kill."""
    values: dict[str, float] = {}
    stages = [stage(plan, values)]
    while not stages[-1].is_over:
        pending = list(stages[-1].pending)
        if order is None:
            values |= {run.id: truth(run) for run in pending}
        else:
            run = order.choice(pending)
            values[run.id] = truth(run)
        now = stage(plan, values)
        if order is None or now.words != stages[-1].words or now.is_over:
            stages.append(now)
        else:
            stages[-1] = now
    return stages
