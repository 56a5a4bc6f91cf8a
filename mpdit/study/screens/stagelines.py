"""The stage of a study as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mpdit.grid.names import short_key
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.study.cost import make_bill
from mpdit.study.status import RunStatus
from mpdit.study.studydir import StudyDir
from mpdit.text import Paint, count, shortlist, two_digits

if TYPE_CHECKING:
    from mpdit.grid.stages import Stage

LISTED = 5


def stage_lines(
    stage: Stage | None, statuses: Sequence[RunStatus], retry: str, paint: Paint
) -> Iterator[str]:
    """The stage of a staged study, and the failed runs that block it; nothing without stages.

    Args:
        retry: the command that runs them again.
    """
    if stage is None:
        return
    yield stage.words
    pending = {run.id for run in stage.pending}
    ended = [s for s in statuses if s.id in pending and s.state in ("failed", "lost")]
    if ended:
        were = "were" if len(ended) > 1 else "was"
        yield paint(
            f"  blocked by {count(len(ended), 'run')} that failed or {were} lost: {retry}", "red"
        )


def forecast_lines(plan: Plan, stage: Stage | None, study: StudyDir, paint: Paint) -> Iterator[str]:
    """The stages of a study, and its cost at least, at most and expected; nothing without stages.

    Args:
        plan: the study's whole plan.
    """
    if stage is None:
        return
    from mpdit.grid.forecast import forecast  # here: with scipy

    declared, seeds = plan.grid.declared, len(plan.grid.seeds)
    yield paint("stages", "bold")
    if declared.tuning:
        chosen = ", ".join(short_key(key) for axis in plan.grid.tune for key in axis.keys)
        over = f"over {count(len(declared.tuning), 'seed')} of its own"
        yield f"  each variant's {chosen} is chosen by a race {over}"
        yield from _extensions(plan)
    looks = ", ".join(map(str, declared.looks))
    yield f"  comparisons at {looks} seeds" if looks else f"  comparisons on {count(seeds, 'seed')}"
    ended = len(stage.runs) - len(stage.pending)
    yield f"  now {stage.words} ({ended:,} of {count(len(stage.runs), 'run')} have ended)"
    first: dict[str, PlannedRun] = {}
    for run in plan.runs:
        first.setdefault(run.variant, run)
    bill = make_bill(list(first.values()), study)
    costs = dict(zip(first, bill.costs, strict=True))

    def needs(runs: Mapping[str, float]) -> str:
        hours: dict[str, float] = {}
        for variant, number in runs.items():
            cost = costs[variant]
            hours[cost.unit] = hours.get(cost.unit, 0.0) + number * cost.hours
        texts = (f"{two_digits(number)} {unit}-hours" for unit, number in hours.items())
        return f"{round(sum(runs.values())):,} runs, about {' and '.join(texts)}"

    found = forecast(plan, stage)
    yield f"  in all at least {needs(found.least)}"
    yield f"         at most {needs(found.most)}"
    if declared.looks:
        how = "assuming that half of the open comparisons end at each look without results"
        yield f"        expected {needs(found.expected)} ({how})"


def _extensions(plan: Plan) -> Iterator[str]:
    """The values by which ranges may be extended."""
    for axis in plan.grid.tune:
        values = [str(v.value) for layer in (*axis.before, *axis.after) for v in layer.values()]
        if values:
            [key] = axis.keys
            most = shortlist(values, 2 * LISTED)
            yield f"  {short_key(key)} is extended while the best is at an edge, at most to {most}"
