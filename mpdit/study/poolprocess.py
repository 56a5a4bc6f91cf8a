"""The local pool: ``python -m mpdit.study.poolprocess CLAIM`` executes the runs of a claim.

Each run is its own process, and a limited number runs at once. The pool has its own session, so it
outlives the terminal that started it. TERM or INT stops it; its runs keep their state and can be
resumed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from mpdit.disk.files import append_row, read_rows
from mpdit.disk.holds import read_held
from mpdit.disk.rundir import RunDir
from mpdit.errors import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    reason_of,
)
from mpdit.study import preloaded
from mpdit.study.claims import read_claim
from mpdit.study.pool import RUN_COMMAND
from mpdit.study.preloaded import Forked, Preloaded
from mpdit.study.runprocess import (
    cores,
    crash_reason,
    find_gpus,
    record_error,
    run_variables,
    start_run,
)
from mpdit.study.studydir import StudyDir

POLL_S = 0.1


@dataclass
class _Child:
    run: RunDir
    slot: int
    process: subprocess.Popen[bytes] | Forked
    started: float = field(default_factory=time.time)
    cancelled: bool = False


class Pool:
    """Executes runs by ``command RUN_DIR``, at most ``parallel`` at once."""

    def __init__(self, claim: Path, runs: list[RunDir], command: list[str], parallel: int) -> None:
        self.claim = claim
        self.waiting = deque(runs)
        self.command = command
        self.gpus = find_gpus()
        self.threads = max(1, cores() // parallel)
        self.free = list(reversed(range(parallel)))
        self.children: list[_Child] = []
        self.stopping = False
        # with a GPU a run takes long, and a process that forks must not have met CUDA
        forks = not self.gpus and tuple(command) == RUN_COMMAND
        self.preloaded = Preloaded() if forks else None

    def work(self) -> None:
        """Execute all runs; return when they have ended or were stopped by a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        while self.children or (self.waiting and not self.stopping):
            while self.free and not self.stopping and (run := self.next_run()) is not None:
                self.start(run)
            time.sleep(POLL_S)
            for child in [c for c in self.children if c.process.poll() is not None]:
                self.finish(child)
            cancelled = self.cancelled() if self.children else ()
            for child in self.children:
                if child.run.name in cancelled and not child.cancelled:
                    child.cancelled = True
                    child.process.terminate()

    def next_run(self) -> RunDir | None:
        """Take the first waiting run that is not held, and drop cancelled ones."""
        if not self.waiting:
            return None
        held, cancelled = read_held(self.claim.parent.parent), self.cancelled()
        self.waiting = deque(run for run in self.waiting if run.name not in cancelled)
        run = next((run for run in self.waiting if run.name not in held), None)
        if run is not None:
            self.waiting.remove(run)
        return run

    def cancelled(self) -> set[str]:
        """The runs that `cancel` has released from the claim (see ``studydir``)."""
        return {file.stem for file in self.claim.with_suffix("").glob("*.exit")}

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Send TERM to the running processes; each run keeps its state."""
        self.stopping = True
        for child in self.children:
            child.process.terminate()

    def start(self, run: RunDir) -> None:
        """Start a run; skip it where its log cannot be opened."""
        slot = self.free[-1]
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        try:
            process = self.start_process(run, gpu)
        except FileNotFoundError:  # its folder was deleted
            self.note(run, None)
            return
        except (ConfigError, OSError) as error:
            reason = reason_of(error)
            recorded = record_error(run, reason, time.time())
            self.note(run, EXIT_FAILED, None if recorded else reason)
            return
        self.free.pop()
        self.children.append(_Child(run, slot, process))
        if self.stopping:  # the signal came while the process was being started
            process.terminate()

    def start_process(self, run: RunDir, gpu: str | None) -> subprocess.Popen[bytes] | Forked:
        """Start a run's process, or raise ConfigError or OSError."""
        server = self.preloaded
        if server is None or not preloaded.serves(run.path) or not server.is_available():
            return start_run(run, self.command, self.threads, gpu)
        env = run_variables(run, self.threads, gpu)
        return server.start([str(run.path)], run.log, env)

    def finish(self, child: _Child) -> None:
        """Record how a process ended, and free its slot."""
        code = child.process.returncode
        assert code is not None
        self.children.remove(child)
        self.free.append(child.slot)
        told = self.stopping or child.cancelled
        stopped = told and code == -signal.SIGTERM  # before it could catch the signal
        if code not in (EXIT_DONE, EXIT_BUSY, EXIT_INTERRUPTED) and not stopped:
            record_error(child.run, crash_reason(child.run, code), child.started)
        self.note(child.run, code)

    def note(self, run: RunDir, code: int | None, reason: str | None = None) -> None:
        """Release a run; when the disk is full it stays claimed until the pool has ended.

        Args:
            reason: why its process could not start; the run's own folder may be on a full disk.
        """
        why = {} if reason is None else {"reason": reason}
        with suppress(OSError):
            append_row(self.claim, {"finished": run.name, "exit": code, **why})


def main(claim: Path) -> None:
    """Execute a claim's runs, then remove the claim."""
    row = read_rows(claim)[0]
    study = StudyDir(claim.parent.parent)
    runs = [study.run(name) for name in row["runs"]]
    pool = Pool(claim, runs, row["command"], row["parallel"])
    pool.work()
    with suppress(FileNotFoundError):  # the study may have been deleted
        if not read_claim(claim).reasons:  # status shows reasons until the next submission
            claim.unlink()
        following = None if pool.stopping else _next_stage(study, row)
        if following is not None:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: following.terminate())
            if pool.stopping:  # the signal came while the next pool was being started
                following.terminate()
            following.wait()
        elif row.get("on_end"):
            from mpdit.study.notice import notify  # here: a pool starts faster without it

            with suppress(ConfigError):  # study.json may be missing
                runs_of = None if row.get("next_stages") else row["runs"]
                notify(study.path, runs_of, row["on_end"])
        log = claim.with_suffix(".log")
        if log.stat().st_size == 0:
            log.unlink()


def _next_stage(study: StudyDir, row: dict[str, Any]) -> subprocess.Popen[bytes] | None:
    """Start the pool of a staged study's next stage; None without one, or if it cannot start."""
    if not row.get("next_stages"):
        return None
    from mpdit.study.advance import advance
    from mpdit.study.submission import Execution

    how = Execution(on_end=row["on_end"], command=row["command"], **row["next_stages"])
    try:
        done = advance(study, how)
    except ConfigError as error:  # the next submit reports it too
        print(f"cannot submit the next stage: {error}", file=sys.stderr, flush=True)
        return None
    return done.process if done else None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
