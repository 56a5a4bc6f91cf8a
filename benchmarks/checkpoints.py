"""The cost of checkpoints in training: ``python benchmarks/checkpoints.py``.

Trains one model for some steps in three ways, alternating in one process: without a checkpoint;
with one that a thread writes (`StateWriter`), as in the trainer; and with one that training waits
for and compares with its checksum. Prints the seconds that training waits for each, and the ratio
of the whole time to that without a checkpoint: medians over the rounds. A round with the thread
ends when the file is written, so its ratio includes the time that the thread takes from the steps.

The ratio is for one checkpoint in ``--steps`` steps. By default training has one every ten minutes,
so the last column scales the seconds to that interval.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from latent_memory import sparse_store
from train_step import LATENTS

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import make_run
from mpdit.disk.rundir import RunDir
from mpdit.runtime.devices import prepare
from mpdit.runtime.distributed import World
from mpdit.runtime.memory import keep_freed_memory
from mpdit.runtime.session import Session
from mpdit.training import checkpoint
from mpdit.training.trainer import Trainer

WAYS = ("none", "by a thread", "waited for")
INTERVAL_S = 600


class Rounds:
    """Steps of a trainer, with or without a checkpoint in the middle."""

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self.trainer, self.steps = trainer, steps

    def take(self, way: str) -> tuple[float, float]:
        """Seconds of a round, and the seconds in it that training waited for its checkpoint."""
        trainer, waited = self.trainer, 0.0
        self._synchronize()
        began = time.perf_counter()
        for step in range(self.steps):
            trainer.step += 1
            trainer.train_step()
            if step == self.steps // 2 and way != "none":
                self._synchronize()
                saving = time.perf_counter()
                trainer._save()
                if way == "waited for":
                    trainer.writer.drain()
                    self._read_back()
                else:
                    self._synchronize()
                waited = time.perf_counter() - saving
        self._synchronize()
        trainer.writer.drain()
        return time.perf_counter() - began, waited

    def _read_back(self) -> None:
        folder, step = self.trainer.run.checkpoints, self.trainer.step
        assert checkpoint._damage(folder / f"step_{step:08d}.pt") is None

    def _synchronize(self) -> None:
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="DiT-S/2")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are written")
    given = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        store = Path(folder) / "store"
        sparse_store(store, LATENTS)
        config = make_run(
            {
                "model": {"name": given.model, **dict.fromkeys(PAPERS_FLAGS, True)},
                "data": {"name": "imagenet128-latents", "path": str(store)},
                "train": {"steps": 1_000_000, "batch_size": given.batch_size},
            }
        )
        run = RunDir(Path(folder) / "run")
        run.write_config(config)
        trainer = Trainer(config, Session(run), prepare(config.train.precision), World())
        rounds = Rounds(trainer, given.steps)
        rounds.take("by a thread")
        taken = [{way: rounds.take(way) for way in WAYS} for _ in range(given.rounds)]
        size = next(run.checkpoints.glob("*.pt")).stat().st_size
    print(f"{given.model}, batch {given.batch_size}, a checkpoint of {size / 1e6:,.0f} MB")
    steps = f"x time of {given.steps} steps"
    print(f"{'checkpoint':12} {'waited s':>9} {steps:>18} {'of 10 min':>10}")
    for way in WAYS:
        waited = statistics.median(times[way][1] for times in taken)
        ratio = statistics.median(times[way][0] / times["none"][0] for times in taken)
        lost = statistics.median(times[way][0] - times["none"][0] for times in taken)
        print(f"{way:12} {waited:9.3f} {ratio:18.3f} {max(lost, 0) / INTERVAL_S:10.2%}")


if __name__ == "__main__":
    main()
