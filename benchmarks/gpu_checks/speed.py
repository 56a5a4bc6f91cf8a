"""Training's speed by model and precision, and the time of compilation."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity

from gpu_checks.bench import Bench, stepper
from gpu_checks.frame import Row, command
from mpdit.flops import TRAINING_PASSES, forward_flops
from mpdit.peaks import peak_flops
from mpdit.runtime.devices import device_name, multiprocessors

CASES = (
    ("XS/2", True, "bfloat16", False),
    ("XS/2", True, "bfloat16", True),
    ("S/2", False, "bfloat16", False),
    ("S/2", True, "bfloat16", False),
    ("S/2", False, "bfloat16", True),
    ("S/2", True, "bfloat16", True),
    ("S/2", True, "tf32", False),
    ("S/2", True, "float32", False),
    ("XL/2", True, "bfloat16", True),
)
"""Model, all flags, precision, compiled."""
COMPILED = tuple((size, flags) for size, flags, _, compiled in CASES if compiled)
ATTENTION = ("flash", "fmha", "sdpa", "attention")


def compilation(at: Bench) -> Iterator[Row]:
    """Compile in parallel the models that `speed` takes from the cache."""
    began = time.perf_counter()
    cases = COMPILED[:1] if at.tiny else COMPILED
    running = {
        case: subprocess.Popen(command(at, "speed", "compile_one", case[0], int(case[1])))
        for case in cases
    }
    for (size, flags), process in running.items():
        status = process.wait()
        name = f"{size} {'all' if flags else 'no'} flags, seconds"
        yield Row(name, time.perf_counter() - began, status == 0)


def compile_one(at: Bench, size: str, flags: str) -> None:
    """Take two compiled steps."""
    with at.trainer(at.config(size, flags == "1", train={"compile": True}), 512) as trainer:
        for _ in range(2):
            stepper(trainer)()


def speed(at: Bench) -> Iterator[Row]:
    """Milliseconds of a step, of its host part and of its device work; MFU; memory."""
    name = device_name(at.place)
    for size, flags, precision, compiled in CASES:
        if precision not in at.precisions or (at.tiny and (compiled or size != "S/2")):
            continue
        config = at.config(size, flags, train={"precision": precision, "compile": compiled})
        if at.cuda:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        with at.trainer(config) as trainer:
            step = stepper(trainer)
            step()
            at.synchronize()
            first = time.perf_counter() - began
            whole, host = at.timed(step, 15)
            kernels, busy_ms, attention = _profile(at, step)
        images = config.train.batch_size / whole
        peak = peak_flops(name, precision, multiprocessors(at.place))
        flops = TRAINING_PASSES * forward_flops(config.model, config.data.spec)
        memory = torch.cuda.max_memory_allocated() / 2**30 if at.cuda else 0.0
        measured = {
            "ms": whole * 1e3,
            "host_ms": host * 1e3,
            "busy_ms": busy_ms,
            "kernels": kernels,
            "images_s": images,
            "mfu": images * flops / peak if peak else None,
            "GiB": memory,
            "first_s": first,
            "attention": attention,
        }
        kind = f"{size} {'all' if flags else 'no'} flags, {precision}"
        yield Row(f"{kind}{', compiled' if compiled else ''}", measured)
        torch._dynamo.reset()
        if at.cuda:
            torch.cuda.empty_cache()


def _profile(at: Bench, step: Callable[[], None]) -> tuple[int, float, str]:
    """A step's kernels, their milliseconds, and which of them are attention's."""
    activity = ProfilerActivity.CUDA if at.cuda else ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as seen:
        step()
        at.synchronize()
    on_device = "CUDA" if at.cuda else "CPU"
    events = [event for event in seen.events() or () if event.device_type.name == on_device]
    names = {event.name[:40] for event in events}
    attention = sorted(name for name in names if any(word in name.lower() for word in ATTENTION))
    if at.cuda:
        spent = sum(event.device_time for event in events)
    else:
        spent = sum(event.self_cpu_time_total for event in events)
    return len(events), spent / 1e3, ", ".join(attention)[:120]
