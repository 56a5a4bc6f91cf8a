"""Continue a study on Slurm: submit waiting runs and the next stage, and retry failed runs.

``python -m mpdit.study.feed STUDY_FOLDER`` does so once; the study's own job calls it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mpdit.errors import ConfigError, say
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.grid.resources import Resources
from mpdit.study.cluster import partitions
from mpdit.study.cluster.endings import failed_nodes
from mpdit.study.reconcile import reconcile
from mpdit.study.retry import adjust, with_memory_times
from mpdit.study.staging import unsubmitted
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, stored_plan, submit
from mpdit.study.waiting import is_mine, read_waiting

ORIGIN = "a retry by itself"
RETRIED = ("out of memory", "timed out", "node failed")
_OF_A_GPU = re.compile(r"OutOfMemoryError|CUDA|HIP")
"""Errors of a full GPU, where more memory of the node does not help."""


def wants(statuses: Sequence[RunStatus]) -> bool:
    """Whether any of these runs waits for room, or is to be retried."""
    return any(status.state == "waiting" or _is_retried(status) for status in statuses)


def _is_retried(status: RunStatus) -> bool:
    error = status.error or ""
    gpu = status.cause == "out of memory" and _OF_A_GPU.search(error)
    return status.retries > 0 and status.cause in RETRIED and not gpu


def feed(study: StudyDir) -> list[Submission]:
    """Submit waiting runs as far as there is room, retry failed runs, and submit the runs that the
    results so far require.

    A run that was out of memory gets twice as much. A run that was out of time gets twice its
    limit, up to its partition's. A run whose node failed goes to other nodes. Another user's study
    is left alone.

    Returns:
        the submissions.

    Raises:
        ConfigError: as `submission.submit`.
    """
    if not is_mine(study.path):
        return []
    with study.lock():
        reconcile(study)
    study = StudyDir(study.path)
    statuses, plan = survey(study), stored_plan(study)
    waiting = read_waiting(study.path)
    how = Execution(
        "slurm",
        waiting.max_parallel,
        live_code=waiting.live_code,
        feeds=True,
        command=waiting.command,
    )
    rules: list[tuple[str, Callable[[RunStatus], bool], _Adjust]] = [
        ("waiting", lambda status: status.state == "waiting", _as_before),
        ("failed", _is_retried, _with_more),
    ]
    fed = []
    for state, is_chosen, prepare in rules:
        chosen = [status for status in statuses if is_chosen(status)]
        room = _room(plan, statuses, study, how.max_parallel)
        if chosen:
            done = submit(
                plan,
                study.path.parent,
                how,
                grid_name=study.grid_name,
                states=[state],
                adjust=lambda runs: room(prepare(runs, study, chosen)),  # noqa: B023 - called at once
            )
            fed += [done] if done.started else []
            statuses = survey(study)
    if study.is_staged:
        room = _room(plan, statuses, study, how.max_parallel)
        done = submit(
            plan,
            study.path.parent,
            how,
            grid_name=study.grid_name,
            states=["planned"],
            adjust=lambda runs: room(unsubmitted(runs, study)),
        )
        fed += [done] if done.started else []
    return fed


_Adjust = Callable[[Sequence[PlannedRun], StudyDir, Sequence[RunStatus]], list[PlannedRun]]


def _as_before(
    runs: Sequence[PlannedRun], study: StudyDir, chosen: Sequence[RunStatus]
) -> list[PlannedRun]:
    """The chosen runs with the resources of their last submission; this uses up no retry."""
    return [_changed(run, status, status.retries) for run, status in _pairs(runs, study, chosen)]


def _with_more(
    runs: Sequence[PlannedRun], study: StudyDir, chosen: Sequence[RunStatus]
) -> list[PlannedRun]:
    """The chosen runs with more of the resource that each lacked; without runs at the limit."""
    there = partitions.read()
    adjusted = []
    for run, status in _pairs(runs, study, chosen):
        own = run.resources
        more: Resources | None = own
        if status.cause == "out of memory":
            more = with_memory_times(own, 2.0, ORIGIN)
        elif status.cause == "timed out":
            most = partitions.longest(own, there)
            time = min(2 * (own.time or 0), most)
            more = own.with_value("time", int(time), ORIGIN) if time > (own.time or 0) else None
        if more is not None:
            adjusted.append(_changed(replace(run, resources=more), status, status.retries - 1))
    accepted = {asked: _is_accepted(asked) for asked in {_text(run) for run in adjusted}}
    return [run for run in adjusted if accepted[_text(run)]]


def _text(run: PlannedRun) -> str:
    return run.resources.model_dump_json()


def _is_accepted(resources: str) -> bool:
    """Whether Slurm accepts a job with these resources: a node may lack the memory, or all may be
    excluded because they failed."""
    from mpdit.study.cluster.arrays import check  # here: importing submitit is slow

    try:
        check({"run": Resources.model_validate_json(resources)})
    except ConfigError:
        return False
    return True


def _pairs(
    runs: Sequence[PlannedRun], study: StudyDir, chosen: Sequence[RunStatus]
) -> Iterator[tuple[PlannedRun, RunStatus]]:
    """Yield each chosen run, with the resources of its last submission, and its status."""
    names, by_name = study.places(runs), {status.name: status for status in chosen}
    last = {entry["name"]: entry.get("submitted", {}) for entry in study.entries}
    for run in adjust(runs, study, None, None):
        name = names.get(run.id, run.name)
        if name in by_name:
            given = last[name].get("resources")  # also set by a retry, or by another shell
            own = run.resources if given is None else Resources.model_validate(given)
            yield replace(run, resources=own), by_name[name]


def _changed(run: PlannedRun, status: RunStatus, retries: int) -> PlannedRun:
    """The run with this number of retries left, and without the nodes that failed under it."""
    errors = [attempt["error"] for attempt in status.attempts] + [status.error or ""]
    nodes = str(run.resources.extra.get("exclude") or "").split(",")
    nodes = list(dict.fromkeys(filter(None, (*nodes, *map(failed_nodes, errors)))))
    more = run.resources.with_value("retry", retries, ORIGIN)
    if nodes:
        more = more.with_value("extra.exclude", ",".join(nodes), ORIGIN)
    return replace(run, resources=more)


def _room(
    plan: Plan, statuses: Sequence[RunStatus], study: StudyDir, max_parallel: int | None
) -> Callable[[Sequence[PlannedRun]], list[PlannedRun]]:
    """Return a function that keeps the first of some runs: as many as may still run at once."""
    names = study.places(plan.runs)
    busy = {status.name for status in statuses if status.state in ("running", "queued")}
    own = {run.id: run.resources for run in plan.runs}

    def group(run: PlannedRun) -> str:
        return "" if max_parallel else own[run.id].model_dump_json()

    used = Counter(group(run) for run in plan.runs if names.get(run.id, run.name) in busy)

    def keep(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        kept = []
        for run in runs:
            most = max_parallel or own[run.id].max_parallel
            packed = own[run.id].runs_per_job
            if most is None or taken[group(run)] < (most - used[group(run)]) // packed * packed:
                kept.append(run)
                taken[group(run)] += 1
        return kept

    taken: Counter[str] = Counter()
    return keep


def main(folder: Path) -> int:
    """Feed a study once; return the exit status."""
    try:
        feed(StudyDir(folder))
    except (ConfigError, OSError) as error:
        return say(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
