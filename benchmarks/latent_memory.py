"""The memory of training on latents: ``python benchmarks/latent_memory.py [--folder DIR]``.

Trains a small model on a small latent store, and for as many steps on a store that is eleven times
larger than the first run's memory; the steps read more than that memory. Prints one JSON object
with both peaks of resident memory, and ends with status 1 when the larger store takes over 5 %
more. The stores are files with holes, so they need no disk space; they are read like any others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mpdit.config import make_run
from mpdit.data.latents import LABELS, MANIFEST, LatentSource, Manifest, StorePlan, shard_name
from mpdit.disk.rundir import RunDir

SMALL_IMAGES = 1024
TIMES_LARGER = 11
BATCH = 16
STEPS = 1500  # 64 KiB an image: 1.5 GB
PROMISED = 1.05


def sparse_store(path: Path, plan: StorePlan) -> None:
    """A store of zeros, with holes for files and without true checksums."""
    path.mkdir(exist_ok=True)
    for shard in range(plan.shards):
        start, stop = plan.shard_range(shard)
        shape = (stop - start, plan.flips, *plan.row_shape)
        np.lib.format.open_memmap(path / shard_name(shard), "w+", np.float16, shape)
    np.save(path / LABELS, np.arange(plan.images) % plan.classes)
    statistics = {"mean": (0.0,) * plan.channels, "std": (1.0,) * plan.channels}
    manifest = Manifest(**dict(plan), **statistics, sha256={})  # type: ignore[arg-type]
    (path / MANIFEST).write_text(manifest.model_dump_json())


def plan_of(images: int) -> StorePlan:
    """Latents of 512 × 512 images: 128 KiB an image."""
    source = LatentSource(data="none", hash="", pixels=512, vae="none", vae_hash=None)
    return StorePlan(
        images=images,
        classes=10,
        channels=4,
        size=64,
        flips=2,
        shard_images=max(1024, images // 256 + 1),
        source=source,
    )


def train(folder: Path, images: int, steps: int) -> float:
    """Peak resident memory (MiB) of a process that trains on a store of ``images`` images."""
    store, run = folder / f"store-{images}", RunDir(folder / f"run-{images}")
    sparse_store(store, plan_of(images))
    data = {"name": "latents", "path": str(store), "channels": 4, "size": 64, "classes": 10}
    model = {"depth": 1, "width": 16, "heads": 2, "patch_size": 16}
    recipe = {"steps": steps, "batch_size": BATCH}
    run.write_config(make_run({"model": model, "data": data, "train": recipe}))
    command = [sys.executable, __file__, "--train", str(run.path)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(said)


def train_here(path: Path) -> None:
    """Train a run in this process and print its peak."""
    import torch

    from mpdit.runtime.distributed import World
    from mpdit.runtime.memory import keep_freed_memory
    from mpdit.runtime.session import open_session
    from mpdit.training.trainer import Trainer

    keep_freed_memory()
    run = RunDir(path)
    with open_session(run) as session:
        Trainer(run.config(), session, torch.device("cpu"), World()).fit()
    # not ru_maxrss, which begins with the parent's memory
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the stores are made, and deleted again")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train_here(arguments.train)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        guess = train(Path(folder), SMALL_IMAGES // 2, steps=2)
        image_mb = plan_of(1).bytes / 2**20
        images = int(TIMES_LARGER * guess / image_mb)
        small = train(Path(folder), SMALL_IMAGES, STEPS)
        large = train(Path(folder), images, STEPS)
    result = {
        "read_mb": STEPS * BATCH * image_mb / 2,
        "small_store_mb": SMALL_IMAGES * image_mb,
        "large_store_mb": images * image_mb,
        "peak_memory_mb_small": small,
        "peak_memory_mb_large": large,
        "large_store_over_its_peak_memory": images * image_mb / large,
        "peak_memory_large_over_small": large / small,
    }
    print(json.dumps(result, indent=1))
    return 0 if large / small <= PROMISED else 1


if __name__ == "__main__":
    sys.exit(main())
