"""Stopping what works on a study: its Slurm tasks, its pools on this host, and its runs alone."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from mpdit import slurm
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.study.cluster.scheduler import Scheduler
from mpdit.study.reconcile import reconcile
from mpdit.study.status import survey
from mpdit.study.studydir import StudyDir

ASK_S = 5
"""Slurm is asked so often whether the tasks have ended, after a first time or two."""


@dataclass(frozen=True)
class Cancelled:
    """How many processes and Slurm tasks were asked to stop, and how many of these have."""

    asked: int
    stopped: int


def cancel(study: StudyDir, patience_s: float = 60) -> Cancelled:
    """Stop what works on a study on Slurm and on this host, and wait for it. Runs keep their state.

    First its tasks and pools, which stop their runs; then the runs that no pool looks after, such
    as those started by hand and those whose pool was killed.

    Raises:
        ConfigError: when something belongs to another user, the rest is stopped all the same; and
            when Slurm does not answer.
    """
    end = time.monotonic() + patience_s
    others: list[str] = []
    arrays = [array.name for claim in study.claims() for array in claim.arrays]
    tasks = _cancel_tasks(study)
    pools = {
        claim.file
        for claim in study.claims()
        if claim.is_here and _terminate(claim.pid, claim.file, others)
    }
    left = _wait(lambda: pools & {claim.file for claim in study.claims()}, end)
    runs = [run for run, pid in _alone(study) if _terminate(pid, run.path / "state.json", others)]
    left += _wait(lambda: [run for run in runs if run.is_leased()], end)
    if tasks:
        left += _wait(lambda: tasks & {task.id for task in slurm.queue(arrays)}, end, (1, 2, ASK_S))
        with study.lock():
            reconcile(study)
    if others:
        raise ConfigError(f"not stopped, as only its owner can: {', '.join(others)}")
    asked = len(pools) + len(runs) + len(tasks)
    return Cancelled(asked, asked - left)


def _wait(
    going: Callable[[], Collection[object]], end: float, pauses: Sequence[float] = (0.1,)
) -> int:
    """Wait until nothing goes on, or time is up; how many do then. The last pause is repeated."""
    seconds = chain(pauses, repeat(pauses[-1]))
    while (found := going()) and time.monotonic() < end:
        time.sleep(next(seconds))
    return len(found)


def _cancel_tasks(study: StudyDir) -> set[str]:
    """Cancel the tasks that Slurm still has; their ids.

    Raises:
        ConfigError: when it does not answer.
    """
    if not any(claim.cluster == "slurm" for claim in study.claims()):
        return set()
    with study.lock():
        reconcile(study)
    scheduler = Scheduler()
    places = scheduler.look(study.claims()).values()
    if scheduler.silence:
        raise ConfigError(scheduler.silence)
    tasks = {place.task for place in places if place.state in ("waiting", "running")}
    if tasks:
        slurm.cancel(sorted(tasks))
        for claim in study.claims():
            if claim.cluster == "slurm":
                claim.cancelled.touch()
    return tasks


def _alone(study: StudyDir) -> Iterator[tuple[RunDir, int]]:
    """The runs that execute on this host without a live pool, and their processes."""
    claimed = {run for claim in study.claims() for run in claim.runs}
    for status in survey(study):
        run = study.run(status.name)
        if status.state != "running" or status.name in claimed or not (said := run.state()):
            continue
        # a run that has just been started again may still have its last, ended process there
        if said.host == socket.gethostname() and said.error is None and said.stopped is None:
            yield run, said.pid


def _terminate(pid: int, file: Path, others: list[str]) -> bool:
    """Ask the process that wrote ``file`` to stop; into ``others`` when it is another user's."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError:
        others.append(f"process {pid} of {file.owner()} on {socket.gethostname()}")
        return False
    return True
