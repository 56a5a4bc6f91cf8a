"""Several processes on one GPU: of one run, and of several runs."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator

import torch.distributed as dist

from gpu_checks.bench import Bench, stepper
from gpu_checks.frame import Row, command, rows_of
from mpdit.errors import ConfigError
from mpdit.runtime.distributed import BACKEND, check_devices, join
from mpdit.training.learner import replicate

SIDE_BY_SIDE_S = 5.0


def ranks(at: Bench) -> Iterator[Row]:
    """Compare gradients of one process and of two by gloo; check that NCCL refuses two."""
    sums = {}
    for name, backend, count in (
        ("one rank", "nccl" if at.cuda else "gloo", 1),
        ("two ranks", "gloo", 2),
    ):
        rows = _start(at, "gradients", backend, count)
        found = [row.value for row in rows if row.name == "gradients"]
        sums[name] = float(found[0]) if found else float("nan")
        said = found[0] if found else [row.value for row in rows]
        yield Row(f"{name} by {backend}, sum of gradients", said, bool(found))
    error = abs(sums["two ranks"] / sums["one rank"] - 1)
    yield Row("two ranks beside one, relative", error, error < 1e-5)
    if at.cuda:
        rows = _start(at, "refused", "nccl", 2)
        refused = [row.value for row in rows if row.name == "refused"]
        yield Row("two ranks by NCCL on one GPU", refused[:1] or "not refused", bool(refused))


def _start(at: Bench, function: str, backend: str, count: int) -> list[Row]:
    """Start the processes of one world, and return their rows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        BACKEND: backend,
    }
    processes = [
        subprocess.Popen(
            command(at, "ranks", function),
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    return [row for process in processes for row in rows_of(process.communicate()[0])]


def gradients(at: Bench) -> Iterator[Row]:
    """The sum of the first batch's absolute gradients, through DDP even for a single process."""
    small = Bench(at.device, tiny=True)
    config = small.config(train={"precision": "float32"})
    if int(os.environ["WORLD_SIZE"]) == 1:  # `join` does not connect a single process
        dist.init_process_group("cpu:gloo,cuda:nccl" if at.cuda else "gloo")
    with join() as world, small.trainer(config) as trainer:
        trainer.world = world
        trainer.replica = replicate(trainer.learner)
        trainer._settle()
        trainer.gradients(1)
        found = [
            p.grad.double().abs().sum().item() for p in trainer.parameters if p.grad is not None
        ]
        trainer.replica = None
        if world.main:
            yield Row("gradients", f"{sum(map(float, found)):.9f}")
    if dist.is_initialized():
        dist.destroy_process_group()


def refused(at: Bench) -> Iterator[Row]:
    """The message that two processes with one GPU get."""
    with join() as world:
        try:
            check_devices(world, at.place)
        except ConfigError as error:
            yield Row("refused", str(error))


def side_by_side(at: Bench) -> Iterator[Row]:
    """Steps a second of one small run, and of three at the same time (``runs_per_job``)."""
    alone = None
    for count in (1, 2 if at.tiny else 3):
        processes = [
            subprocess.Popen(command(at, "ranks", "steps"), stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        rows = [row for process in processes for row in rows_of(process.communicate()[0])]
        total = sum(row.value for row in rows if row.name == "steps")
        alone = alone or total
        gain = f"{total / alone:.2f} × one" if alone else ""
        name = f"{count} XS/2 at once, steps/s in all"
        yield Row(name, {"steps_s": total, "gain": gain}, total > 0)


def steps(at: Bench) -> Iterator[Row]:
    """Steps a second, over some seconds."""
    compiled = not at.tiny
    with at.trainer(at.config("XS/2", train={"compile": compiled}), 512) as trainer:
        step, count = stepper(trainer), 0
        for _ in range(10):
            step()
        at.synchronize()
        began, limit = time.monotonic(), 1.0 if at.tiny else SIDE_BY_SIDE_S
        while time.monotonic() - began < limit:
            for _ in range(10):
                step()
            count += 10
            at.synchronize()
        yield Row("steps", count / (time.monotonic() - began))
