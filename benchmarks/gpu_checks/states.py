"""Training's state: the cost of checkpoints, and the message when memory is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from gpu_checks.bench import Bench, stepper
from gpu_checks.frame import Row
from mpdit.disk.rundir import RunDir
from mpdit.run import LESS_MEMORY, execute

MOST_WAITED = 0.1
"""The fraction of a checkpoint's whole time that training may wait for it, on a GPU."""


def checkpoints(at: Bench) -> Iterator[Row]:
    """Seconds that training waits for a checkpoint, that writing takes, and that a resume takes."""
    for size in ("S/2",) if at.tiny else ("S/2", "XL/2"):
        with at.trainer(at.config(size, train={"batch_size": 8}), images=512) as trainer:
            step = stepper(trainer)
            step()
            at.synchronize()
            trainer._save()  # the first one pins memory
            trainer.writer.drain()
            host = _seconds(trainer._save, lambda: None)
            copied = host + _seconds(at.synchronize, lambda: None)
            written = copied + _seconds(trainer.writer.drain, lambda: None)
            step()
            at.synchronize()
            snapshot = _seconds(trainer._snapshot, at.synchronize)
            trainer.writer.drain()
            file = max(trainer.run.checkpoints.glob("*.pt"))
            resumed = _seconds(trainer._resume, at.synchronize)
            measured = {
                "GB": file.stat().st_size / 1e9,
                "host_s": host,
                "waited_s": copied,
                "written_s": written,
                "snapshot_waited_s": snapshot,
                "resumed_s": resumed,
            }
        good = copied < MOST_WAITED * written if at.cuda and not at.tiny else None
        yield Row(size, measured, good)


def _seconds(work: Callable[[], object], then: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    then()
    return time.perf_counter() - began


def memory(at: Bench) -> Iterator[Row]:
    """A batch that does not fit ends the run in one message with a remedy."""
    config = at.config("XL/2", train={"batch_size": 4096, "steps": 10})
    with at.trainer(config) as trainer:
        run = trainer.run
        if not at.cuda:
            yield Row("out of memory", "a CPU's process would be killed")
            return
        del trainer
        torch.cuda.empty_cache()
        yield _ended(run)


def _ended(run: RunDir) -> Row:
    status = execute(run)
    state = run.state()
    error = str(state.error) if state is not None else ""
    fits = "the run has ended" if status == 0 else f"status {status}: {error}"
    return Row("out of memory", fits[:200], status == 1 and LESS_MEMORY in error)
