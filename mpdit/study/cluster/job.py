"""One task of a Slurm array: it executes its runs side by side, each in its own process.

submitit calls a `Job` in every process that srun starts. Slurm sends USR2 ahead of the time limit
and at preemption; submitit then calls `Job.checkpoint` and requeues its result. A run that is
done or failed is released with a file ``<run>.exit``. A run that was stopped half-way is not
released: the requeued job resumes only such runs. A run that `cancel` has released, in a task that
also has other runs, is stopped or not started.

Slurm sends the signals to all processes of a step, so the runs' processes receive them too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission
from submitit.slurm.slurm import SlurmJobEnvironment

from mpdit import slurm
from mpdit.disk.files import write_atomic
from mpdit.disk.rundir import STAGES, RunDir
from mpdit.errors import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    reason_of,
)
from mpdit.study.runprocess import cores, crash_reason, find_gpus, record_error, start_run
from mpdit.study.studydir import StudyDir

POLL_S = 0.2
LINGER_S = 900
"""Seconds a stopped task waits for Slurm to kill or requeue it (`Job._linger`)."""
PEERS_S = 30
"""Seconds that the other processes of a run have to write their logs when one has died."""
STALLS = 3
"""The most allocations in a row that may time out without progress: the limit is too short."""
EARLY_S = 60
"""Seconds by which Slurm may send the signal too early."""
BUSY_S = 30
"""Seconds between two attempts to start a run that another process holds."""
BUSY_TRIES = 20
RELEASED_S = 2
"""Seconds between two checks which runs of a shared task `cancel` has released."""
INTERRUPTED = (EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGUSR2)
"""The exit statuses of a stopped run: its own, or the signal's if it could not catch it yet."""


@dataclass(eq=False)
class Job:
    """The callable that submitit pickles and calls with the names of a task's runs.

    Attributes:
        claim: the folder of the submission's claim.
        command: a Python with its arguments that executes one run, given its folder as last
            argument; the job's own Python is used in its place.
        side_by_side: the number of runs in a full task; each gets its share of the cores.
        minutes: the time limit.
        stop_s: seconds between Slurm's signal and the limit.
        stalls: allocations in a row that have timed out without progress.
    """

    claim: Path
    command: Sequence[str]
    side_by_side: int
    minutes: int
    stop_s: int
    stalls: int = 0

    def __post_init__(self) -> None:
        # used when a signal comes before the runs are started
        self._main = True  # only the main process is told to checkpoint
        self._began = float("inf")
        self._interrupted = self._failed = False
        self._kept: list[tuple[str, frozenset[str]]] = []
        self._children: dict[RunDir, subprocess.Popen[bytes]] = {}
        self._due: dict[RunDir, float] = {}
        self._busy: Counter[RunDir] = Counter()
        self._listed = 0.0

    def __call__(self, names: Sequence[str]) -> None:
        """Execute the runs, then exit with status 1 when one has failed, else 0."""
        place = JobEnvironment()
        SlurmJobEnvironment._requeue = _requeue  # type: ignore[method-assign]  # it asks once
        self._main = place.global_rank == 0  # it alone releases runs
        self._began = time.time()
        runs = self._runs(names)
        self._kept = _kept(runs)
        tasks = place.num_tasks // place.num_nodes  # on this node
        threads = max(1, _cores(tasks) // self.side_by_side)
        found = find_gpus() if self.side_by_side > 1 else []
        gpus = {run: found[slot % len(found)] for slot, run in enumerate(runs) if found}
        self._due = dict.fromkeys(self._unfinished(names), 0.0)
        while self._children or self._due:
            for run in [run for run, due in self._due.items() if due <= time.monotonic()]:
                del self._due[run]
                try:
                    self._children[run] = start_run(
                        run, (sys.executable, *self.command[1:]), threads, gpus.get(run)
                    )
                except (ConfigError, OSError) as error:  # such as a deleted folder
                    self._fail(run, reason_of(error))
            time.sleep(POLL_S)
            self._look()
        if self._interrupted:
            self._linger(names)
        sys.exit(EXIT_FAILED if self._failed else EXIT_DONE)

    def checkpoint(self, names: Sequence[str]) -> DelayedSubmission:
        """Stop the runs, which keep their state, and return the job to requeue."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a second one would requeue twice
        for child in self._children.values():
            child.terminate()
        end = time.monotonic() + 0.75 * self.stop_s
        while self._children and time.monotonic() < end:
            time.sleep(POLL_S)
            self._look()
        for child in self._children.values():  # these resume from their last checkpoint
            child.kill()
            child.wait()
        unfinished = self._unfinished(names)
        if not unfinished:
            sys.exit(EXIT_FAILED if self._failed else EXIT_DONE)
        stalls = self.stalls
        if time.time() - self._began > 60 * self.minutes - self.stop_s - EARLY_S:
            stalls = stalls + 1 if _kept(self._runs(names)) == self._kept else 0
        if stalls < STALLS:
            return DelayedSubmission(replace(self, stalls=stalls), names)
        self._began = time.time()
        stalled = f"{STALLS} allocations of {self.minutes} min in a row ended without progress"
        for run in unfinished:  # else they would be requeued for ever
            self._fail(run, f"timed out: {stalled}")
        sys.exit(EXIT_FAILED)

    def _runs(self, names: Sequence[str]) -> list[RunDir]:
        study = StudyDir(self.claim.parent.parent)
        return [study.run(name) for name in names]

    def _unfinished(self, names: Sequence[str]) -> list[RunDir]:
        """The runs that no allocation of this job has released."""
        runs = self._runs(names)
        for run in runs:
            if run.is_done():
                self._release(run, EXIT_DONE)
        return [run for run in runs if not self._exit_file(run).exists()]

    def _look(self) -> None:
        """Handle the processes that have ended."""
        if self.side_by_side > 1 and time.monotonic() >= self._listed + RELEASED_S:
            self._listed = time.monotonic()
            for run in [run for run in self._children if self._exit_file(run).exists()]:
                self._children[run].terminate()
        for run, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[run]
            if code in INTERRUPTED:
                self._interrupted |= not self._exit_file(run).exists()
            elif code == EXIT_BUSY:
                # Another process holds the run, or an orphan that Slurm could not confirm as ended.
                # If this task is itself the orphan, the run stays busy: a later allocation has it.
                self._busy[run] += 1
                if self._busy[run] < BUSY_TRIES:
                    self._due[run] = time.monotonic() + BUSY_S
            elif code == EXIT_DONE:
                self._release(run, code)
            else:
                self._fail(run, crash_reason(run, code))

    def _fail(self, run: RunDir, reason: str) -> None:
        if not self._main:
            time.sleep(PEERS_S)
            sys.exit(EXIT_FAILED)  # srun then ends the others, which would wait for this one
        self._failed = True
        if record_error(run, reason, self._began):
            self._release(run, EXIT_FAILED)
        else:  # the task's log is where status finds it
            print(f"{run.name} failed: {reason}", flush=True)

    def _exit_file(self, run: RunDir) -> Path:
        return self.claim / f"{run.name}.exit"

    def _release(self, run: RunDir, code: int) -> None:
        if self._main:
            with suppress(ConfigError, OSError):  # claim deleted or disk full: it stays claimed
                write_atomic(self._exit_file(run), f"{code}\n")

    def _linger(self, names: Sequence[str]) -> None:
        """Wait until Slurm kills the job after its TERM.

        Slurm requeues a preempted job only when it kills it, not when the job exits by itself.
        """
        end = time.monotonic() + LINGER_S
        while time.monotonic() < end and not self._is_cancelled(names):
            time.sleep(POLL_S)
        sys.exit(EXIT_INTERRUPTED)

    def _is_cancelled(self, names: Sequence[str]) -> bool:
        file = self.claim / "cancelled"
        return file.exists() and not set(names).isdisjoint(file.read_text().split())


def _requeue(self: SlurmJobEnvironment, countdown: int) -> None:  # noqa: ARG001
    slurm.requeue(self.job_id)


def _cores(tasks: int) -> int:
    """The CPU cores of each of ``tasks`` tasks on this node."""
    allocated = int(os.environ.get("SLURM_CPUS_ON_NODE", cores() * tasks)) // tasks
    return min(cores(), max(1, allocated))


def _kept(runs: Sequence[RunDir]) -> list[tuple[str, frozenset[str]]]:
    """The progress of each run: its stage, and the names of the files that it can resume from."""
    found = []
    for run in runs:
        state = run.state()
        files = (*run.checkpoints.glob("*"), *run.samples.rglob("*"))
        found.append((state.stage if state else STAGES[0], frozenset(file.name for file in files)))
    return found
