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
from mpdit.disk import links
from mpdit.disk.files import make_folder, write_atomic
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_INTERRUPTED, ConfigError
from mpdit.study.claims import Claim
from mpdit.study.cluster.scheduler import Scheduler
from mpdit.study.reconcile import reconcile
from mpdit.study.status import survey
from mpdit.study.studydir import StudyDir
from mpdit.study.waiting import read_waiting, stop_waiting

ASK_S = 5
"""Seconds between checks whether the tasks have ended, after the first two checks."""


@dataclass(frozen=True)
class Cancelled:
    """Numbers of processes and Slurm tasks that were asked to stop, and that have stopped.

    A run that waited for room counts as both.
    """

    asked: int
    stopped: int


def cancel(
    study: StudyDir, patience_s: float = 60, only: Collection[str] | None = None
) -> Cancelled:
    """Stop a study's Slurm tasks and local processes, and wait for them. Runs keep their state.

    Tasks and pools come first, and stop their own runs. Then come the runs without a pool: those
    started by hand, and those whose pool was killed.

    Args:
        only: the runs to stop; None stops all. Where a pool or task has other runs too, these runs
            are released from its claim: it then stops them, or does not start them.

    Raises:
        ConfigError: when Slurm does not answer, or when a process belongs to another user; the
            other processes are stopped in that case.
    """
    end = time.monotonic() + patience_s
    only = None if only is None else frozenset(only)
    others: list[str] = []
    waiting = _stop_feeding(study, only)
    arrays = [array.name for claim in study.claims() for array in claim.arrays]
    tasks, released = _cancel_tasks(study, only)
    pools: set[Path] = set()
    if only is None:
        pools = {
            claim.file
            for claim in study.claims()
            if claim.is_here and _terminate(claim.pid, claim.file, others)
        }
    else:
        local = [claim for claim in study.claims() if claim.cluster == "local"]
        released |= {run for claim in local for run in _release(claim, claim.runs & only)}
    left = _wait(lambda: pools & {claim.file for claim in study.claims()}, end)
    left += _wait(lambda: [run for run in released if study.run(run).is_leased()], end)
    runs = [
        run
        for run, pid in _alone(study, only)
        if run.name not in released and _terminate(pid, run.path / "state.json", others)
    ]
    left += _wait(lambda: [run for run in runs if run.is_leased()], end)
    if tasks:
        left += _wait(lambda: tasks & {task.id for task in slurm.queue(arrays)}, end, (1, 2, ASK_S))
        with study.lock():
            reconcile(study)
    if others:
        raise ConfigError(f"could not stop (owned by another user): {', '.join(others)}")
    asked = len(pools) + len(runs) + len(tasks) + len(released) + len(waiting)
    return Cancelled(asked, asked - left)


def _stop_feeding(study: StudyDir, only: Collection[str] | None) -> Collection[str]:
    """Cancel what would submit runs later: waiting for room, and automatic retries.

    Call this before the tasks are cancelled: their end starts the small job that feeds the study.

    Returns:
        the runs that waited.
    """
    retried = any(entry.get("submitted", {}).get("retries") for entry in study.entries)
    if not retried and not read_waiting(study.path).runs:
        return ()
    with study.lock():
        fresh = StudyDir(study.path)
        chosen = {e["name"]: e for e in fresh.entries if only is None or e["name"] in only}
        submitted = {run: entry.get("submitted", {}) for run, entry in chosen.items()}
        retries = {run: said for run, said in submitted.items() if said.get("retries")}
        fresh.note_submitted({run: said | {"retries": 0} for run, said in retries.items()})
        return stop_waiting(study.path, chosen)


def _wait(
    going: Callable[[], Collection[object]], end: float, pauses: Sequence[float] = (0.1,)
) -> int:
    """Wait until ``going()`` is empty or time is up, and return how many are left.

    Args:
        end: the deadline, in seconds of the monotonic clock.
        pauses: seconds between two checks; the last pause repeats.
    """
    seconds = chain(pauses, repeat(pauses[-1]))
    while (found := going()) and time.monotonic() < end:
        time.sleep(next(seconds))
    return len(found)


def _cancel_tasks(study: StudyDir, only: Collection[str] | None) -> tuple[set[str], set[str]]:
    """Cancel the study's waiting and running tasks whose runs are all to be stopped.

    Returns:
        the ids of those tasks, and the runs that were released from other tasks.

    Raises:
        ConfigError: when Slurm does not answer.
    """
    if not any(claim.cluster == "slurm" for claim in study.claims()):
        return set(), set()
    with study.lock():
        reconcile(study)
    scheduler = Scheduler()
    places = scheduler.look(study.claims())
    if scheduler.silence:
        raise ConfigError(scheduler.silence)
    tasks: set[str] = set()
    released: set[str] = set()
    for claim in study.claims():
        cancelled: list[str] = []
        for array in claim.arrays:
            for task, members in array.task_ids().items():
                left = [run for run in members if run in claim.runs]
                chosen = [run for run in left if only is None or run in only]
                if not chosen or places[chosen[0]].state not in ("waiting", "running"):
                    continue
                if chosen == left:
                    tasks.add(task)
                    cancelled += chosen
                else:
                    released |= _release(claim, chosen)
        if cancelled:
            links.check(claim.cancelled)
            with claim.cancelled.open("a") as file:  # before scancel: a stopped task reads it
                file.writelines(f"{run}\n" for run in cancelled)
    if tasks:
        slurm.cancel(sorted(tasks))
    return tasks, released


def _release(claim: Claim, runs: Collection[str]) -> set[str]:
    """Release runs from a claim; its pool or task stops them.

    Raises:
        ConfigError: when the claim is another user's.
    """
    try:
        for run in runs:
            make_folder(claim.folder)
            write_atomic(claim.exit_file(run), f"{EXIT_INTERRUPTED}\n")
    except PermissionError:
        raise ConfigError(
            f"cannot stop {', '.join(runs)}, submitted by {claim.file.owner()}"
        ) from None
    return set(runs)


def _alone(study: StudyDir, only: Collection[str] | None) -> Iterator[tuple[RunDir, int]]:
    """Yield the runs that execute on this host without a live pool, with their process ids."""
    claimed = {run for claim in study.claims() for run in claim.runs}
    for status in survey(study, only):
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
