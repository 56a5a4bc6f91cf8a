"""Training's measurements: sums on the device between the rows of metrics.jsonl."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.disk.rundir import RunDir
from mpdit.flops import TRAINING_PASSES, forward_flops
from mpdit.peaks import peak_flops
from mpdit.runtime.devices import device_name, multiprocessors, peak_memory_mb

MEASURES = ("loss", "mse", "vlb", "grad_norm")
Row = dict[str, float | int]


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; the last good checkpoint is kept."""


class Meters:
    """Makes the rows of metrics.jsonl: means since the last row, speed, memory.

    Args:
        devices: number of identical devices the speed covers.

    Attributes:
        seconds: time spent in training, over all starts: steps, probes, snapshots, checkpoints.
        row_seconds: the part of it since the last row.
    """

    def __init__(self, config: RunConfig, run: RunDir, device: torch.device, devices: int) -> None:
        self.config, self.run, self.device = config, run, device
        self.sums = torch.zeros(len(MEASURES), device=device)  # since the last row
        self.summed = 0  # steps in the sums
        self.seconds = self.row_seconds = 0.0
        peak = peak_flops(device_name(device), config.train.precision, multiprocessors(device))
        self.peak = peak * devices if peak else None  # FLOP/s
        self.flops = TRAINING_PASSES * forward_flops(config.model, config.data.spec)  # an image's

    def took(self, seconds: float) -> None:
        """Add the time since the step before."""
        self.seconds += seconds
        self.row_seconds += seconds

    def add(self, measures: Float[Tensor, " measures"]) -> None:
        """Add the measures of one step, without waiting for the device."""
        self.sums += measures
        self.summed += 1

    def means(self, step: int) -> dict[str, float]:
        """Return the measures' means since the last row; waits for the device.

        Raises:
            NonFiniteLossError: when the loss or the gradient norm is NaN or infinite.
        """
        means = dict(zip(MEASURES, (self.sums / self.summed).tolist(), strict=True))
        for name in ("loss", "grad_norm"):
            if not math.isfinite(means[name]):
                raise NonFiniteLossError(
                    f"the {name} is {means[name]} at step {step}; {_kept(self.run)}. "
                    "A smaller learning rate may help"
                )
        return means

    def row(self, step: int, means: dict[str, float], learning_rate: float) -> Row:
        """Return the row of metrics.jsonl for the steps since the last row, and reset the sums."""
        speed = self.summed * self.config.train.batch_size / self.row_seconds
        row = {
            "step": step,
            **means,
            "learning_rate": learning_rate,
            "images_per_s": speed,
            "memory_mb": peak_memory_mb(self.device),
            "seconds": self.seconds,
        }
        if self.peak:
            row["mfu"] = speed * self.flops / self.peak
        self.sums.zero_()
        self.summed, self.row_seconds = 0, 0.0
        return row

    def state_dict(self) -> dict[str, Tensor | float]:
        return {
            "sums": self.sums,
            "summed": self.summed,
            "seconds": self.seconds,
            "row_seconds": self.row_seconds,
        }

    def load_state_dict(self, state: dict[str, Tensor | float]) -> None:
        self.sums.copy_(torch.as_tensor(state["sums"]))
        self.summed = int(state["summed"])
        self.seconds, self.row_seconds = float(state["seconds"]), float(state["row_seconds"])


def _kept(run: RunDir) -> str:
    """Name the checkpoint to resume from."""
    files = sorted(run.checkpoints.glob("step_*.pt"))
    return f"{files[-1]} is kept" if files else "there is no checkpoint yet"
