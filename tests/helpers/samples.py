"""Sample sets in memory and on disk, and the command that draws them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mpdit.disk.rundir import RunDir
from mpdit.sampling.drawing import Drawing, draw
from mpdit.sampling.sampler import load_average
from mpdit.sampling.sampleset import to_uint8
from tests.helpers.doors import call

CPU = torch.device("cpu")


def arrays(file: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(file) as opened:
        return opened["arr_0"], opened["arr_1"]


def drawn(run: RunDir, **changes: object) -> np.ndarray:
    """A whole set in memory."""
    drawing = replace(Drawing.of_run(run.config()), **changes)
    model = load_average(run, drawing.ema_std, drawing.snapshot, CPU)
    model.fold()
    x = draw(model, drawing, range(drawing.count), CPU)
    return to_uint8(x.numpy(), drawing.to_uint8)


def command(*arguments: object) -> int:
    return call("sample", *arguments)
