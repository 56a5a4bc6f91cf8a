"""Hold a study's waiting runs, in Slurm and in local pools, until they are released."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mpdit import slurm
from mpdit.disk.holds import read_held, write_held
from mpdit.errors import ConfigError
from mpdit.study.cluster.scheduler import Scheduler
from mpdit.study.reconcile import reconcile
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir


@dataclass(frozen=True)
class Changed:
    """The runs that were held or released.

    Attributes:
        runs: their present states.
        shared: the runs that were left unchanged, because their jobs also have other runs.
    """

    runs: list[RunStatus]
    shared: list[str]


def hold(study: StudyDir, names: Collection[str]) -> Changed:
    """Hold the named runs that wait. A run that starts meanwhile is left alone.

    Raises:
        ConfigError: when Slurm does not answer, or does not hold a run.
    """
    with study.lock():
        waiting = _of_state(study, names, "queued", "waiting")
        tasks, shared = _tasks(study, waiting)
        asked = waiting - shared
        before = read_held(study.path)
        write_held(study.path, before | asked)  # first: pools read it before a start
        failure = None
        try:
            slurm.hold(tasks)
        except ConfigError as error:  # also when a task has just started
            failure = error
        after = _look(study, before | asked)
        write_held(study.path, [status.name for status in after if status.state == "held"])
        if failure is not None and any(status.state == "queued" for status in after):
            raise failure
        held = [status for status in after if status.state == "held" and status.name in asked]
        return Changed(held, sorted(shared))


def release(study: StudyDir, names: Collection[str]) -> Changed:
    """Release the named runs that are held.

    Raises:
        ConfigError: when Slurm does not answer, or does not release a run.
    """
    with study.lock():
        held = _of_state(study, names, "held")
        tasks, shared = _tasks(study, held)
        slurm.release(tasks)
        write_held(study.path, read_held(study.path) - (held - shared))
        return Changed(_look(study, held - shared), sorted(shared))


def _of_state(study: StudyDir, names: Collection[str], *states: str) -> set[str]:
    reconcile(study)  # finds the jobs of a submitter that died before it wrote their ids
    return {status.name for status in _look(study, names) if status.state in states}


def _look(study: StudyDir, names: Collection[str]) -> list[RunStatus]:
    scheduler = Scheduler()
    statuses = survey(study, names, scheduler)
    if scheduler.silence:
        raise ConfigError(scheduler.silence)
    return statuses


def _tasks(study: StudyDir, chosen: set[str]) -> tuple[list[str], set[str]]:
    """The Slurm tasks of chosen runs only, and the chosen runs whose task also has other runs."""
    tasks: list[str] = []
    shared: set[str] = set()
    for claim in study.claims():
        for array in claim.arrays:
            for task, members in array.task_ids().items():
                left = claim.runs.intersection(members)
                if left and left <= chosen:
                    tasks.append(task)
                else:
                    shared |= left & chosen
    return tasks, shared
