"""The process of a run: its devices, its start, and the reason of its end."""

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
from typing import Any

from mpdit.disk import links
from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import ConfigError
from mpdit.study import codesnapshot

TAIL_BYTES = 4000


def cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def find_gpus() -> list[str]:
    """The GPUs that runs may use, by their names in CUDA_VISIBLE_DEVICES."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name for name in allowed.split(",") if name.strip()]
        # CUDA uses the names before the first invalid one; -1 is the usual way to hide all
        return list(itertools.takewhile(lambda name: not name.strip().startswith("-"), names))
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def start_run(
    run: RunDir, command: Sequence[str], threads: int, gpu: str | None = None
) -> subprocess.Popen[bytes]:
    """Start the process that executes a run; its output goes to the run's log.

    The arguments and errors are those of `run_variables`.
    """
    env = run_variables(run, threads, gpu)
    return spawn([*command, str(run.path)], run.log, env=env)


def run_variables(run: RunDir, threads: int, gpu: str | None) -> dict[str, str]:
    """The environment of the process that executes a run.

    Args:
        threads: the CPU threads that it may use.
        gpu: the only GPU that it sees; None for all that this process sees.

    Raises:
        ConfigError: when the snapshot of its code is missing or was changed.
    """
    code = codesnapshot.run_environment(run.path)
    env = {**os.environ, **code, "MPDIT_THREADS": str(threads)}
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    return env


def spawn(command: Sequence[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process without input whose output is appended to ``log``.

    Raises:
        ConfigError: when the log is a link (`mpdit.disk.links`).
    """
    links.check(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **options
        )


def crash_reason(run: RunDir, code: int) -> str:
    """Why a process failed, from its exit status and the last line of its log."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = map(str.strip, reversed(tail(run.log).splitlines()))
    return next(filter(None, lines), f"exit status {code}")


def record_error(run: RunDir, reason: str, started: float) -> bool:
    """Write the reason of a failure to state.json, unless the run did so since ``started``.

    Returns:
        whether no other attempt is needed: the reason is written, or the folder was deleted. False
        while another process holds the run, and on a full disk.
    """
    try:
        with run.lease():
            state = run.state() or RunState()
            if state.error is None or state.heartbeat < started:
                started = max(state.started, started)
                ended = replace(state, error=reason, stopped=None, started=started)
                run.write_state(replace(ended, heartbeat=time.time(), host=socket.gethostname()))
    except FileNotFoundError:
        return True
    except (BusyError, ConfigError, OSError):
        return False
    return True


def tail(file: Path) -> str:
    """The last few kilobytes of a log; '' when it does not exist, or is another user's."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode(errors="replace")
    except (FileNotFoundError, PermissionError):
        return ""
