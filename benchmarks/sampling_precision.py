"""How far samples in bfloat16 are from real images: ``benchmarks/sampling_precision.py RUN``.

Draws a finished run's own samples and repeats in float32 and in bfloat16 from the same noise, and
prints their Fréchet distances. Compare the difference of a pair with the spread of the repeats,
which differ only by their noise. Nothing is written into the run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from mpdit.disk.rundir import RunDir
from mpdit.evaluation import extractors, metrics, references
from mpdit.evaluation.extractors.extractor import Features
from mpdit.runtime.devices import prepare
from mpdit.sampling.drawing import Drawing, draw
from mpdit.sampling.sampler import load_average
from mpdit.sampling.sampleset import to_uint8

PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    given = parser.parse_args()
    run = RunDir(given.run)
    config = run.config()
    device = prepare("float32")
    extractor = extractors.load(config.evaluate, device)
    real = references.load(
        config.data, config.evaluate, extractor, lambda batches, _: iter(batches)
    )
    model = load_average(run, config.sample.ema_std, config.train.steps, device)
    model.fold()

    def distance(drawing: Drawing) -> float:
        size = config.sample.batch_size
        starts = range(0, drawing.count, size)
        batches = (range(start, min(start + size, drawing.count)) for start in starts)
        images = [
            to_uint8(draw(model, drawing, indices, device).cpu().numpy(), drawing.to_uint8)
            for indices in batches
        ]
        found = Features.join(extractor.look(images))
        return metrics.frechet_distance(metrics.statistics(found.pooled), real.statistics)

    found: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for repeat in range(given.repeats):
        drawing = replace(Drawing.of_run(config, repeat), images=run.images_by_class())
        for precision in PRECISIONS:
            found[precision].append(distance(replace(drawing, precision=precision)))
    off = np.subtract(found["bfloat16"], found["float32"])
    spread = statistics.stdev(found["float32"])
    measured = {"distances": found, "difference": off.mean(), "spread": spread}
    if given.json:
        print(json.dumps(measured))
        return
    for name, values in found.items():
        print(f"{name:8} mean {np.mean(values):.3f}: {np.round(values, 3).tolist()}")
    print(f"bfloat16 - float32: mean {off.mean():+.3f}, largest {np.abs(off).max():.3f}; "
          f"standard deviation of the repeats {spread:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
