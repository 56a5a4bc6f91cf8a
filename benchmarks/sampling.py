"""The cost of drawing a sample: ``python benchmarks/sampling.py``.

A magnitude-preserving DiT on latents 4×16×16. First, one evaluation of the model in three ways,
alternating in one process: as in training (weights normalized in every forward pass, and the batch
evaluated again without labels); with folded weights; with folded weights and without the second
evaluation, as for guidance 1. The ratios are medians over the rounds. Then images/s of every solver
at its usual number of steps, from the time of ten steps, folded, with guidance 1.5.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mpdit.catalogue import SOLVERS
from mpdit.config import DataConfig, make_run
from mpdit.model import DiT
from mpdit.runtime.devices import prepare
from mpdit.runtime.memory import keep_freed_memory
from mpdit.sampling.drawing import Drawing, draw

LATENTS = DataConfig(name="imagenet128-latents").spec
USUAL = {"ddpm": 250, "ddim": 50, "dpm++": 20, "heun": 32}
MEASURED = 10
"""The number of steps that are timed; all steps take the same time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="DiT-S/2")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    device = prepare("float32")
    tree: dict[str, Any] = {
        "model": {"name": given.model, "preset": "mods"},
        "data": "imagenet128-latents",
        "train": {"steps": 1},
        "sample": {"precision": given.precision, "steps": MEASURED},
    }
    config = make_run(tree)
    tree["train"]["objective"], tree["sample"]["solver"] = "flow", "heun"
    flow = Drawing.of_run(make_run(tree))
    plain = DiT(config.model, LATENTS).to(device)
    folded = copy.deepcopy(plain)
    folded.fold()
    if given.compile:
        plain.compile_blocks()
        folded.compile_blocks()
    B = given.batch_size
    x = torch.randn(B, LATENTS.channels, LATENTS.size, LATENTS.size, device=device)
    t, y = torch.randint(0, 1000, (2, B), device=device)
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bfloat16")

    def seconds(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    ways: dict[str, Callable[[], object]] = {
        "as in training": lambda: plain.train().guided(x, t, y, 1.5),
        "folded": lambda: folded.eval().guided(x, t, y, 1.5),
        "folded, no second half": lambda: folded.eval().guided(x, t, y, 1.0),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode(), bfloat16:
        for turn in range(given.rounds + 2):
            for way in ways if turn % 2 else reversed(ways):
                spent = seconds(ways[way])
                if turn >= 2:  # the first turns compile and warm the caches
                    taken[way].append(spent)
    first = taken["as in training"]
    print(f"{given.model}, batch {B}, {given.precision}, {device.type}")
    for way, times in taken.items():
        ratio = statistics.median(a / b for a, b in zip(first, times, strict=True))
        print(f"{way:24} {1000 * statistics.median(times):8.1f} ms   ×{ratio:.2f} as fast")

    own = Drawing.of_run(config)
    for name, steps in USUAL.items():
        drawing = replace(flow if SOLVERS[name].continuous else own, solver=name)
        draw(folded, replace(drawing, steps=2), range(B), device)
        of_ten = seconds(partial(draw, folded, drawing, range(B), device))
        print(f"{name:8} {steps:4} steps   {B / of_ten * MEASURED / steps:8.2f} images/s")


if __name__ == "__main__":
    main()
