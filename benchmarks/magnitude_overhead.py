"""The cost of magnitude preservation in training: ``python benchmarks/magnitude_overhead.py``.

DiT-S/2 with all flags and with none, latents 4×16×16, batch 32, float32: forward, backward, Adam,
and forced weight normalization, eagerly and with compiled blocks. The two models take turns, so
that other load of the machine affects both. Prints the ratios of the medians beside the promised
ones, and ends with status 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import DataConfig
from mpdit.model import DiT
from mpdit.modelconfig import ModelConfig
from mpdit.runtime.memory import keep_freed_memory
from mpdit.training.weights import StepWeights

PROMISED = {"eager": 1.08, "compiled": 1.03}
LATENTS = DataConfig(name="imagenet128-latents").spec


def make_step(flags: bool, compiled: bool, batch: int) -> Callable[[], None]:
    """A function for one training step of a new model."""
    options = {"name": "DiT-S/2", **dict.fromkeys(PAPERS_FLAGS, flags)}
    model = DiT(ModelConfig.model_validate(options), LATENTS)
    if compiled:
        model.compile_blocks()
    weights = StepWeights(model, compiled=compiled)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)
    x = torch.randn(batch, LATENTS.channels, LATENTS.size, LATENTS.size)
    target = torch.randn(batch, 2 * LATENTS.channels, LATENTS.size, LATENTS.size)
    t, y = torch.randint(0, 1000, (2, batch))

    def step() -> None:
        weights.force()
        with weights.normalized():
            (model(x, t, y) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ratio(compiled: bool, batch: int, rounds: int) -> tuple[float, float, float]:
    """Median seconds with all flags and with none, and the median of the rounds' ratios."""
    steps = [make_step(flags, compiled, batch) for flags in (True, False)]
    seconds: list[list[float]] = [[], []]
    for turn in range(rounds + 2):
        for place in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            steps[place]()
            if turn >= 2:  # the first turns compile and warm the caches
                seconds[place].append(time.perf_counter() - began)
    with_flags, without = map(statistics.median, seconds)
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    return with_flags, without, statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", choices=list(PROMISED))
    given = parser.parse_args()
    keep_freed_memory()  # as the trainer does
    kept = []
    for name in [given.only] if given.only else PROMISED:
        all_flags, none, measured = ratio(name == "compiled", given.batch_size, given.rounds)
        print(
            f"{name:10} all flags {all_flags:6.3f} s   none {none:6.3f} s   "
            f"×{measured:.3f}  promised ×{PROMISED[name]:.2f}",
            flush=True,
        )
        kept.append(measured <= PROMISED[name])
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
