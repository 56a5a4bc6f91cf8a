"""The local pool: ``python -m mpdit.study.pool CLAIM`` brings a claim's runs to their end.

It executes at most so many at a time, each in a process of its own. It runs in a session of its
own, and so outlives the terminal that started it; TERM or INT asks it to stop: its runs keep their
state and are left resumable.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    RunDir,
    RunState,
    append_row,
    read_rows,
)
from mpdit.errors import ConfigError

RUN_COMMAND = (sys.executable, "-m", "mpdit.run")
POLL_S = 0.1
TAIL_BYTES = 4000


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def find_gpus() -> list[str]:
    """The GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name for name in allowed.split(",") if name.strip()]
        # CUDA sees those before the first impossible one, and so none for the usual -1
        return list(itertools.takewhile(lambda name: not name.strip().startswith("-"), names))
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def default_parallel() -> int:
    """One run a GPU, or without any one run a core."""
    return len(find_gpus()) or cores()


@dataclass
class _Child:
    run: RunDir
    slot: int
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.time)


class Pool:
    """Executes runs, at most ``parallel`` at once, each by ``command RUN_DIR``."""

    def __init__(self, claim: Path, runs: list[RunDir], command: list[str], parallel: int) -> None:
        self.claim = claim
        self.waiting = deque(runs)
        self.command = command
        self.gpus = find_gpus()
        self.threads = max(1, cores() // parallel)
        self.free = list(reversed(range(parallel)))
        self.children: list[_Child] = []
        self.stopping = False

    def work(self) -> None:
        """Until every run has ended, or a signal has stopped those that were running."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        while self.children or (self.waiting and not self.stopping):
            while self.waiting and self.free and not self.stopping:
                self.start(self.waiting.popleft())
            time.sleep(POLL_S)
            for child in [c for c in self.children if c.process.poll() is not None]:
                self.finish(child)

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ask the running ones to keep their state and leave."""
        self.stopping = True
        for child in self.children:
            child.process.terminate()

    def start(self, run: RunDir) -> None:
        """Begin a run; where it cannot even have a log, such as in a deleted folder, go on."""
        slot = self.free[-1]
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        try:
            process = start_run(run, self.command, self.threads, gpu)
        except OSError:
            self.note(run, None)
            return
        self.free.pop()
        self.children.append(_Child(run, slot, process))
        if self.stopping:  # the signal came while the process was being made
            process.terminate()

    def finish(self, child: _Child) -> None:
        code = child.process.returncode
        self.children.remove(child)
        self.free.append(child.slot)
        stopped = self.stopping and code == -signal.SIGTERM  # before it could catch the signal
        if code not in (EXIT_DONE, EXIT_BUSY, EXIT_INTERRUPTED) and not stopped:
            record_error(child.run, crash_reason(child.run, code), child.started)
        self.note(child.run, code)

    def note(self, run: RunDir, code: int | None) -> None:
        """Let go of a run; without room for the row, it stays claimed until the pool has ended."""
        with suppress(OSError):
            append_row(self.claim, {"finished": run.name, "exit": code})


def start_run(
    run: RunDir, command: Sequence[str], threads: int, gpu: str | None = None
) -> subprocess.Popen[bytes]:
    """A process that executes a run; what it says goes to the run's log.

    Args:
        gpu: the only one that it sees; None for those that this process sees.
    """
    env = {**os.environ, "MPDIT_THREADS": str(threads)}
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    with run.log.open("ab") as log:
        return subprocess.Popen(
            [*command, str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
        )


def crash_reason(run: RunDir, code: int) -> str:
    """Why a process has died, where the run could not say so itself."""
    reason = _signal_text(-code) if code < 0 else last_line(run.log)
    return reason or f"ended with exit status {code}"


def record_error(run: RunDir, reason: str, started: float) -> bool:
    """Say in state.json why a run has ended, unless it has said so itself since ``started``.

    Returns:
        False when the run is another process's by now.
    """
    try:
        with run.lease():
            state = run.state() or RunState()
            if state.error is None or state.heartbeat < started:
                run.write_state(
                    replace(
                        state,
                        error=reason,
                        stopped=None,
                        heartbeat=time.time(),
                        started=max(state.started, started),
                        host=socket.gethostname(),
                    )
                )
    except BusyError:
        return False
    except OSError:
        pass  # its folder is gone, or the disk is full
    return True


def _signal_text(number: int) -> str:
    name = signal.Signals(number).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def tail(file: Path) -> str:
    """The end of a log; nothing of one that is not there."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def last_line(file: Path) -> str:
    """The last line of a log that says something."""
    lines = map(str.strip, reversed(tail(file).splitlines()))
    return next(filter(None, lines), "")


def start_pool(claim: Path, held: Any, log: Path) -> subprocess.Popen[bytes]:
    """A pool in a session of its own, which inherits the lock on its claim."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mpdit.study.pool", str(claim)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[held.fileno()],
        )


def main(claim: Path) -> None:
    """Work through a claim, and remove it."""
    row = read_rows(claim)[0]
    study = claim.parent.parent
    runs = [RunDir(study / name) for name in row["runs"]]
    Pool(claim, runs, row["command"], row["parallel"]).work()
    with suppress(FileNotFoundError):  # the whole study may have been deleted
        claim.unlink()
        if row.get("on_end"):
            from mpdit.study.notice import notify  # the pool itself is light

            with suppress(ConfigError):  # study.json alone may have been
                notify(study, row["runs"], row["on_end"])
        log = claim.with_suffix(".log")
        if log.stat().st_size == 0:
            log.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
