"""Stop everything that works on a study: its Slurm tasks, its local pools, and single runs."""

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
"""Seconds between two queries whether the tasks have ended, after the first two."""


@dataclass(frozen=True)
class Cancelled:
    """Numbers of processes and Slurm tasks that were asked to stop, and that have stopped."""

    asked: int
    stopped: int


def cancel(study: StudyDir, patience_s: float = 60) -> Cancelled:
    """Stop a study's Slurm tasks and local processes, and wait for them. Runs keep their state.

    Tasks and pools come first, and stop their own runs. Then come the runs without a pool: those
    started by hand, and those whose pool was killed.

    Raises:
        ConfigError: when Slurm does not answer, or when a process belongs to another user; the
            other processes are stopped in that case.
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
        raise ConfigError(f"could not stop (owned by another user): {', '.join(others)}")
    asked = len(pools) + len(runs) + len(tasks)
    return Cancelled(asked, asked - left)


def _wait(
    going: Callable[[], Collection[object]], end: float, pauses: Sequence[float] = (0.1,)
) -> int:
    """Wait until ``going()`` is empty or time is up, and return how many are left.

    Args:
        end: in seconds of the monotonic clock.
        pauses: seconds between the looks; the last one repeats.
    """
    seconds = chain(pauses, repeat(pauses[-1]))
    while (found := going()) and time.monotonic() < end:
        time.sleep(next(seconds))
    return len(found)


def _cancel_tasks(study: StudyDir) -> set[str]:
    """Cancel the study's waiting and running tasks, and return their ids.

    Raises:
        ConfigError: when Slurm does not answer.
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
    """Yield the runs that execute on this host without a live pool, with their process ids."""
    claimed = {run for claim in study.claims() for run in claim.runs}
    for status in survey(study):
        run = study.run(status.name)
        if status.state != "running" or status.name in claimed or not (said := run.state()):
            continue
        # a run that was just restarted may still name its previous, ended process
        if said.host == socket.gethostname() and said.error is None and said.stopped is None:
            yield run, said.pid


def _terminate(pid: int, file: Path, others: list[str]) -> bool:
    """Send TERM to the process that wrote ``file``, and return whether it was sent.

    Another user's process is appended to ``others`` instead.
    """
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
