"""The cost of measuring a sample set: ``python benchmarks/evaluation.py``.

10,000 images of noise, of the size of the digits, stand for samples. All metrics are measured
twice: first without anything cached, then from the stored features. Prints the seconds, the number
of images read from the file of samples, the number of images that went through the extractor
(samples, reference and held-out images together), and the peak of resident memory so far. Ends
with status 1 when an image was read or extracted twice.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from mpdit.catalogue import METRICS
from mpdit.config import make_run
from mpdit.disk import npz
from mpdit.disk.rundir import RunDir
from mpdit.evaluation.evaluation import evaluate_run
from mpdit.evaluation.extractors.extractor import Extractor, Features
from mpdit.evaluation.realimages import Batch, of_split
from mpdit.runtime.session import Session
from mpdit.sampling.sampler import samples_file

read = looked_at = 0


def count_images() -> None:
    """Count every image that is read from a sample set, or goes through an extractor."""
    images, look = npz.images, Extractor.look

    def counted_images(file: Path, at_once: int) -> Iterator[Batch]:
        global read
        for batch in images(file, at_once):
            read += len(batch)
            yield batch

    def counted_look(self: Extractor, batches: Iterable[Batch]) -> Iterator[Features]:
        global looked_at
        for features in look(self, batches):
            looked_at += len(features.pooled)
            yield features

    npz.images = counted_images
    Extractor.look = counted_look  # type: ignore[method-assign]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", choices=("digits", "fashion-mnist"), default="digits")
    parser.add_argument("--count", type=int, default=10_000)
    given = parser.parse_args()
    config = make_run(
        {
            "model": {"depth": 1, "width": 16, "heads": 2, "patch_size": 4},
            "data": given.data,
            "train": {"steps": 1},
            "sample": {"count": given.count},
            "evaluate": {"metrics": list(METRICS)},
        }
    )
    side = config.data.spec.size
    noise = np.random.default_rng(0).integers(0, 256, (given.count, side, side, 1), np.uint8)
    real = of_split(config.data, "train").count + of_split(config.data, "test", given.count).count
    count_images()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MPDIT_CACHE"] = f"{folder}/cache"
        run = RunDir(Path(folder, "run"))
        run.write_config(config)
        run.samples.mkdir()
        np.savez_compressed(samples_file(run), arr_0=noise, arr_1=np.arange(given.count) % 10)
        print(f"{given.count:,} samples, {real:,} real images of {given.data}, {device.type}")
        for times in ("first", "again"):
            before, began = (read, looked_at), time.perf_counter()
            evaluate_run(config, Session(run), device)
            seconds = time.perf_counter() - began
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{times}: {seconds:6.1f} s, {read - before[0]:,} samples read, "
                f"{looked_at - before[1]:,} images extracted, peak {memory:,.0f} MiB"
            )
            (run.path / "evaluation.jsonl").unlink()
    return int((read, looked_at) != (given.count, given.count + real))


if __name__ == "__main__":
    sys.exit(main())
