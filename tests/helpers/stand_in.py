"""A stand-in for ``mpdit.run``: the run directory's manners without the science.

It notes every start, counts its steps, keeps them when TERM or USR2 comes and goes on from them.
What else it does is in its folder's name: ``slow`` and ``steady`` take a while, ``raises`` and
``dies`` fail at the start, ``stuck`` keeps nothing and begins anew; ``early-SIGUSR2`` and
``early-SIGTERM`` are ended by that signal, as a run that has not yet come to catch it;
``diverges`` fails as training does when its loss becomes NaN. Its distance is about 20, and about 8
where it is ``better``; the noise belongs to the name.
"""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from types import FrameType

import mpdit
from mpdit.disk.files import append_row
from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import EXIT_BUSY, EXIT_INTERRUPTED

COMMAND = (sys.executable, __file__)
STEP_S = 0.02

stopped = False


def stop(_number: int, _frame: FrameType | None) -> None:
    global stopped
    stopped = True


def execute(run: RunDir) -> int:
    name = run.name
    before = (None if "stuck" in name else run.state()) or RunState()
    steps = 2000 if "slow" in name else 1600 if "stuck" in name else 400 if "steady" in name else 10
    state = RunState(
        step=before.step, steps=steps, host=socket.gethostname(), pid=os.getpid(), started=now()
    )
    run.write_state(replace(state, heartbeat=now()))
    append_row(
        run.path / "starts.jsonl",
        {
            "began": now(),
            "step": before.step,
            "threads": os.environ["MPDIT_THREADS"],
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "node": os.environ.get("SLURMD_NODENAME"),
            "version": mpdit.__version__,
            "code": str(Path(mpdit.__file__).parents[1]),
        },
    )
    print(f"{name} begins at step {before.step}", flush=True)
    if "raises" in name and not before.error:
        raise RuntimeError("a first time always fails")
    if "diverges" in name:
        raise RuntimeError("the loss is nan at step 3")
    if "dies" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "early-" in name:
        number = signal.Signals[name.partition("early-")[2]]
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    while state.step < steps:
        state = replace(state, step=state.step + 1, heartbeat=now(), rate=100.0, eta=1.0, loss=0.5)
        run.write_state(state)
        if stopped:
            run.write_state(replace(state, stopped="SIGTERM"))
            if "stuck" not in name:
                run.checkpoints.mkdir(exist_ok=True)
                (run.checkpoints / f"step_{state.step:08d}.pt").touch()
            return EXIT_INTERRUPTED
        time.sleep(STEP_S)
    append_row(run.path / "starts.jsonl", {"ended": now()})
    append_row(run.path / "evaluation.jsonl", {"metric": "FD-digits@50", "value": distance(name)})
    run.write_state(replace(state, stage="done", heartbeat=now()))
    return 0


def distance(name: str) -> float:
    noise = random.Random(zlib.crc32(name.encode())).gauss(0, 0.04)
    return (8 if "better" in name else 20) * math.exp(noise)


def now() -> float:
    return time.time()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR2, stop)
    folder = RunDir(Path(sys.argv[1]))
    try:
        with folder.lease():
            sys.exit(execute(folder))
    except BusyError:
        sys.exit(EXIT_BUSY)
