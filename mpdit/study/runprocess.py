"""A run's process: what it may use, its start, and what is known of its end."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import RunDir, RunState

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
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = map(str.strip, reversed(tail(run.log).splitlines()))
    return next(filter(None, lines), f"ended with exit status {code}")


def record_error(run: RunDir, reason: str, started: float) -> bool:
    """Say in state.json why a run has ended, unless it has said so itself since ``started``.

    Returns:
        False when the run is another process's by now.
    """
    try:
        with run.lease():
            state = run.state() or RunState()
            if state.error is None or state.heartbeat < started:
                started = max(state.started, started)
                ended = replace(state, error=reason, stopped=None, started=started)
                run.write_state(replace(ended, heartbeat=time.time(), host=socket.gethostname()))
    except BusyError:
        return False
    except OSError:
        pass  # its folder is gone, or the disk is full
    return True


def tail(file: Path) -> str:
    """The end of a log; nothing of one that is not there."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
