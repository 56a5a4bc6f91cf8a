"""Where the host waits for the device within a training step or a solver's step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from gpu_checks.bench import Bench, stepper
from gpu_checks.frame import Row
from mpdit.sampling.drawing import Drawing, draw
from mpdit.training.trainer import build_model


def syncs(at: Bench) -> Iterator[Row]:
    """Host synchronizations that PyTorch reports: none in a training step, and equally many in 4
    and in 8 steps of a solver.

    Training is measured with the latents held on the device, and read from disk.
    """
    if not at.cuda:
        yield Row("host synchronizations", "nothing to synchronize with on a CPU")
        return
    memory = torch.cuda.mem_get_info
    for compiled in (False, True):
        for source in ("held on the device", "read from disk"):
            if source == "read from disk":  # as with a full GPU
                torch.cuda.mem_get_info = lambda *_: (1, 1)
            with at.trainer(at.config(train={"compile": compiled})) as trainer:
                torch.cuda.mem_get_info = memory
                step = stepper(trainer)
                for _ in range(3):
                    step()
                found = reported(step)
            name = f"step, {'compiled' if compiled else 'eager'}, latents {source}"
            yield Row(name, found or 0, not found)
    config = at.config(sample={"precision": "bfloat16"})
    model = build_model(config, at.place).eval()
    model.fold()
    counts = []
    for steps in (4, 8):
        drawing = replace(Drawing.of_run(config), steps=steps)
        draw(model, drawing, range(8), at.place)
        counts.append(len(reported(lambda d=drawing: draw(model, d, range(8), at.place))))  # type: ignore[misc]
    yield Row("in a batch of 4 and of 8 solver's steps", counts, counts[0] == counts[1])


def reported(work: Callable[[], object]) -> list[str]:
    """The synchronizations that a call of ``work`` makes, by place."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [(str(one.message), f"{Path(one.filename).name}:{one.lineno}") for one in said]
    return [f"{text[:60]} {place}" for text, place in places if "synchroniz" in text]
