"""Runs as processes of their own, and what they leave."""

import hashlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE

TIMED = ("images_per_s", "memory_mb", "seconds")
"""What differs between two runs of one config: clock times, and the process's memory."""

FORKED = multiprocessing.get_context("forkserver")
"""Processes forked from one that has imported everything: importing takes seconds each time."""
FORKED.set_forkserver_preload(
    ["mpdit.run", "sklearn.datasets", "mpdit.evaluation.extractors.classifier", "mpdit.ema.power"]
)


def start(run: RunDir) -> subprocess.Popen[str]:
    """``python -m mpdit.run`` on it, as a user would."""
    return subprocess.Popen(
        [sys.executable, "-m", "mpdit.run", str(run.path)],
        env={**os.environ, "MPDIT_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: RunDir) -> None:
    process = start(run)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_DONE, output


def fork(
    run: RunDir,
    said: Path | None = None,
    largest_file: int = 0,
    prepare: Callable[[], None] | None = None,
) -> ForkServerProcess:
    """The same without the wait for imports: mpdit.run's main in a forked process.

    Args:
        said: a file for what it prints.
        largest_file: bytes that a file may grow to, as if the disk were full; 0 is no limit.
        prepare: called in the process before anything else.
    """
    process = FORKED.Process(target=_main, args=(run.path, said, largest_file, prepare))
    process.start()
    return process


def finish_forked(run: RunDir) -> None:
    process = fork(run)
    process.join(timeout=120)
    assert process.exitcode == EXIT_DONE, run.log.read_text()


def signal_at_call(number: int, sent: signal.Signals, action: Callable[[], None]) -> None:
    """Act, and get a signal just before the ``number``-th call into the operating system."""
    calls = 0

    def count(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal calls
        owner = getattr(called, "__self__", None)
        if event == "c_call" and {called.__module__, type(owner).__module__} & {"posix", "_io"}:
            calls += 1
            if calls == number:
                os.kill(os.getpid(), sent)

    sys.setprofile(count)
    action()
    sys.setprofile(None)


def _main(
    folder: Path, said: Path | None, largest_file: int, prepare: Callable[[], None] | None
) -> None:
    from mpdit.commandline.door import door

    if prepare is not None:
        prepare()
    if said is not None:
        sys.stderr = sys.stdout = said.open("w", buffering=1)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.environ["MPDIT_THREADS"] = "1"
    sys.exit(door(["run", str(folder)], "mpdit"))


def science_of(run: RunDir) -> dict[str, object]:
    """Everything a run measured and made, without clock times."""
    rows = {
        name: [
            {key: value for key, value in row.items() if key not in TIMED}
            for row in read_rows(run.path / name)
        ]
        for name in ("metrics.jsonl", "magnitudes.jsonl", "evaluation.jsonl")
    }
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (*run.ema.iterdir(), run.samples / "grid.png")
    }
    with np.load(run.samples / "samples.npz") as arrays:
        arrays_bytes = {key: arrays[key].tobytes() for key in arrays}
    samples = {key: hashlib.sha256(data).hexdigest() for key, data in arrays_bytes.items()}
    return {**rows, **files, "samples": samples}
