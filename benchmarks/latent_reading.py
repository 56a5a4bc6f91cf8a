"""How long training waits for latents on a slow disk: ``python benchmarks/latent_reading.py``.

Each row of a batch takes a millisecond to read, as on a network file system, and a step computes
for 60. Prints the milliseconds that a step waits, with one thread and one batch read ahead, and as
training reads (`mpdit.training.batches`), in turns in one process; the batches are the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from latent_memory import sparse_store
from train_step import LATENTS

from mpdit.config import RunConfig, make_run
from mpdit.data.latents import LatentStore
from mpdit.training import batches
from mpdit.training.batches import Batches

ROW_S, STEP_S = 0.001, 0.06
STEPS, TURNS = 12, 3
WAYS = {"one thread, one batch ahead": (1, 1), "as in training": (batches.READERS, batches.AHEAD)}


class SlowStore(LatentStore):
    """A store whose rows take a millisecond each."""

    def read(self, images: Any, flips: Any) -> Any:
        time.sleep(ROW_S * len(images))
        return super().read(images, flips)


def waits(config: RunConfig, readers: int, ahead: int) -> tuple[list[float], torch.Tensor]:
    """Seconds that each step waits, without the first two steps, and the last batch."""
    batches.READERS, batches.AHEAD = readers, ahead
    opened = Batches(config, torch.device("cpu"))
    spent: list[float] = []
    opened.reader.store.__class__ = SlowStore  # type: ignore[attr-defined]
    for step in range(1, STEPS + 1):
        began = time.perf_counter()
        x0, _ = opened.batch(step)
        spent.append(time.perf_counter() - began)
        time.sleep(STEP_S)
    return spent[2:], x0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        sparse_store(Path(store), LATENTS)
        train = {"steps": STEPS, "batch_size": given.batch_size}
        data = {"name": "imagenet128-latents", "path": store}
        config = make_run({"model": {"name": "DiT-S/2"}, "data": data, "train": train})
        spent: dict[str, list[float]] = {way: [] for way in WAYS}
        last: list[torch.Tensor] = []
        for _ in range(TURNS):
            for way, (readers, ahead) in WAYS.items():
                seconds, x0 = waits(config, readers, ahead)
                spent[way] += seconds
                last.append(x0)
    assert all(torch.equal(x0, last[0]) for x0 in last)
    found = {way: 1000 * statistics.median(seconds) for way, seconds in spent.items()}
    if given.json:
        print(json.dumps({"batch_size": given.batch_size, "waits_ms": found}))
        return
    for way, milliseconds in found.items():
        print(f"{way:28} a step of {1000 * STEP_S:.0f} ms waits {milliseconds:6.1f} ms")


if __name__ == "__main__":
    main()
