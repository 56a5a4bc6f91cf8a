"""Whole runs, as a user starts them, give the same bits: repeated, and after interruptions."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_checks.bench import Bench
from gpu_checks.frame import Row
from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import make_run
from mpdit.disk.rundir import RunDir

KINDS: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "float32": {"precision": "float32"},
    "compiled": {"compile": True},
}
SIGNALS = ("USR2", "KILL")


def bits(at: Bench) -> Iterator[Row]:
    """Snapshots and samples of pairs of runs, and of runs that a signal has stopped midway."""
    kinds = {"bfloat16": {}} if at.tiny else KINDS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pairs = {
            (kind, name): _run(at, root / f"{kind}-{name}", options)
            for kind, options in kinds.items()
            for name in ("a", "b")
        }
        broken = {name: _run(at, root / name, {}) for name in SIGNALS}
        whole = [_start(run, root / f"cache-{run.name}") for run in pairs.values()]
        _stop({name: (run, _start(run)) for name, run in broken.items()})
        again = [_start(run) for run in broken.values()]
        for process in (*whole, *again):
            process.wait()
        for kind in kinds:
            first, second = (_digest(pairs[kind, name]) for name in ("a", "b"))
            done = pairs[kind, "a"].is_done() and pairs[kind, "b"].is_done()
            yield Row(f"{kind}, twice", f"{first} {second}", done and first == second)
        exact = _digest(pairs["bfloat16", "a"])
        for name, run in broken.items():
            resumed = "resuming from step" in run.log.read_text()
            same = run.is_done() and _digest(run) == exact
            value = f"{_digest(run)} {'resumed' if resumed else 'had ended before'}"
            yield Row(f"stopped by {name}", value, same and resumed)


def _run(at: Bench, folder: Path, options: dict[str, Any]) -> RunDir:
    steps = 120 if at.tiny else 400
    model: dict[str, Any] = {"depth": 2, "width": 128, "heads": 2, "patch_size": 2}
    if at.tiny:
        model |= {"depth": 1, "width": 32}
    train = {
        "steps": steps,
        "batch_size": 16 if at.tiny else 256,
        "checkpoint_every": steps // 4,
        "snapshot_every": steps,
        "precision": "bfloat16",
        "log_every": 10,
    }
    tree = {
        "model": {**model, **dict.fromkeys(PAPERS_FLAGS, True)},
        "data": "digits",
        "train": train | options,
        "sample": {"count": 50, "steps": 10, "batch_size": 24},
    }
    run = RunDir(folder)
    run.write_config(make_run(tree))
    return run


def _start(run: RunDir, cache: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a run; with ``cache`` it uses nothing that another run has compiled and tuned."""
    environment = {**os.environ, "MPDIT_THREADS": "1"}
    if cache is not None:
        environment |= {
            "TORCHINDUCTOR_CACHE_DIR": str(cache),
            "TRITON_CACHE_DIR": str(cache / "triton"),
        }
    return subprocess.Popen([sys.executable, "-m", "mpdit.run", str(run.path)], env=environment)


def _stop(runs: dict[str, tuple[RunDir, subprocess.Popen[bytes]]]) -> None:
    """Send each run its signal once it has a checkpoint, and wait for its end."""
    running = dict(runs)
    while running:
        for name, (run, process) in list(running.items()):
            if process.poll() is not None or list(run.checkpoints.glob("step_*.pt")):
                with suppress(ProcessLookupError):
                    process.send_signal(getattr(signal, f"SIG{name}"))
                del running[name]
        time.sleep(0.01)
    for _, process in runs.values():
        process.wait()


def _digest(run: RunDir) -> str:
    files = [*sorted(run.ema.glob("*.safetensors")), *run.samples.glob("samples.npz")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
