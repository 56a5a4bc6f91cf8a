"""What one task of a Slurm array executes: its runs side by side, each in a process of its own.

submitit calls a `Job` in every process that srun starts. Ahead of the time limit, and when the job
is preempted, Slurm sends USR2; submitit then calls `Job.checkpoint` and requeues what it returns.
A run that has come to an end, well or badly, is let go of with a file ``<run>.exit``; one that was
stopped half-way is not: the requeued job goes on with it, and with it alone.

The signals reach the runs' processes too, as Slurm sends them to all of a step.
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

from mpdit.disk.rundir import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    STAGES,
    RunDir,
    explain_os_error,
)
from mpdit.study.runprocess import cores, crash_reason, find_gpus, record_error, start_run

POLL_S = 0.2
LINGER_S = 900
"""So long a task whose runs were stopped waits for what Slurm does with it (`Job._linger`)."""
PEERS_S = 30
"""So long the other processes of a run have for their last words when one has died."""
STALLS = 3
"""So many allocations in a row may run out without anything kept; then the limit is too short."""
EARLY_S = 60
"""Slurm may send the signal so much earlier than it was asked to."""
BUSY_S = 30
BUSY_TRIES = 20
"""So often, and so far apart, a run is tried that another process holds."""
INTERRUPTED = (EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGUSR2)
"""How a stopped run ends: by itself, or by the signal that came before it could catch one."""


@dataclass(eq=False)
class Job:
    """An importable callable, as submitit pickles it.

    Attributes:
        claim: the folder of the submission's claim.
        command: executes one run, given its folder as last argument.
        side_by_side: the runs that a full task has; each gets its share of the cores.
        minutes: the time limit.
        stop_s: how long before its end Slurm says so.
        stalls: allocations that have run out, one after the other, without anything kept.
    """

    claim: Path
    command: Sequence[str]
    side_by_side: int
    minutes: int
    stop_s: int
    stalls: int = 0

    def __post_init__(self) -> None:
        # what a signal finds that comes before the runs are started
        self._main = True  # no other process is told to checkpoint
        self._began = float("inf")
        self._interrupted = self._failed = False
        self._kept: list[tuple[str, frozenset[str]]] = []
        self._children: dict[RunDir, subprocess.Popen[bytes]] = {}
        self._due: dict[RunDir, float] = {}
        self._busy: Counter[RunDir] = Counter()

    def __call__(self, names: Sequence[str]) -> None:
        """Bring the runs to their end; the exit status is 1 when one has failed."""
        place = JobEnvironment()
        self._main = place.global_rank == 0  # it keeps the books for all processes of a run
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
                    self._children[run] = start_run(run, self.command, threads, gpus.get(run))
                except OSError as error:  # such as a deleted folder
                    self._fail(run, explain_os_error(error))
            time.sleep(POLL_S)
            self._look()
        if self._interrupted:
            self._linger()
        sys.exit(EXIT_FAILED if self._failed else EXIT_DONE)

    def checkpoint(self, names: Sequence[str]) -> DelayedSubmission:
        """Have the runs keep their state; what is to be requeued."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a second one would requeue twice
        for child in self._children.values():
            child.terminate()
        end = time.monotonic() + 0.75 * self.stop_s
        while self._children and time.monotonic() < end:
            time.sleep(POLL_S)
            self._look()
        for child in self._children.values():  # they go on from their last checkpoint
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
        reason = f"{STALLS} allocations of {self.minutes} min in a row ended before"
        for run in unfinished:  # it would be requeued for ever
            self._fail(run, f"timed out: {reason} anything was kept")
        sys.exit(EXIT_FAILED)

    def _runs(self, names: Sequence[str]) -> list[RunDir]:
        study = self.claim.parent.parent
        return [RunDir(study / name) for name in names]

    def _unfinished(self, names: Sequence[str]) -> list[RunDir]:
        """The runs that no allocation of this job has brought to an end."""
        runs = self._runs(names)
        for run in runs:
            if run.is_done():
                self._let_go(run, EXIT_DONE)
        return [run for run in runs if not self._exit_file(run).exists()]

    def _look(self) -> None:
        """Let go of the runs that have ended."""
        for run, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[run]
            if code in INTERRUPTED:
                self._interrupted = True
            elif code == EXIT_BUSY:
                # another's, or an orphan's of whose end Slurm's word could not be had. When this
                # process is the orphan itself, it stays busy: its own next allocation has the run
                self._busy[run] += 1
                if self._busy[run] < BUSY_TRIES:
                    self._due[run] = time.monotonic() + BUSY_S
            elif code == EXIT_DONE:
                self._let_go(run, code)
            else:
                self._fail(run, crash_reason(run, code))

    def _fail(self, run: RunDir, reason: str) -> None:
        if not self._main:
            time.sleep(PEERS_S)
            sys.exit(EXIT_FAILED)  # srun ends the others: they would wait for this one for ever
        self._failed = True
        if record_error(run, reason, self._began):
            self._let_go(run, EXIT_FAILED)

    def _exit_file(self, run: RunDir) -> Path:
        return self.claim / f"{run.name}.exit"

    def _let_go(self, run: RunDir, code: int) -> None:
        if self._main:
            with suppress(OSError):  # the claim is gone, or the disk is full: the run stays claimed
                self._exit_file(run).write_text(f"{code}\n")

    def _linger(self) -> None:
        """Wait for the end that Slurm makes, after a TERM that it sends ahead of it.

        A job that it preempts or requeues goes on later only when it is killed, not when it leaves.
        """
        end = time.monotonic() + LINGER_S
        while time.monotonic() < end and not (self.claim / "cancelled").exists():
            time.sleep(POLL_S)
        sys.exit(EXIT_INTERRUPTED)


def _cores(tasks: int) -> int:
    """The CPU cores of each of so many tasks on this node."""
    allocated = int(os.environ.get("SLURM_CPUS_ON_NODE", cores() * tasks)) // tasks
    return min(cores(), max(1, allocated))


def _kept(runs: Sequence[RunDir]) -> list[tuple[str, frozenset[str]]]:
    """The stage of each run and the names of what it can go on from."""
    found = []
    for run in runs:
        state = run.state()
        files = (*run.checkpoints.glob("*"), *run.samples.rglob("*"))
        found.append((state.stage if state else STAGES[0], frozenset(file.name for file in files)))
    return found
