"""Making a latent store: shard by shard, by several processes, in as many attempts as it takes.

A shard is written aside, synced, summed up in ``moments-00000.json`` and then counts as done; what
is done is never made again. Each process makes every ``processes``-th shard, and the first one
writes the manifest when all shards are there. They do not talk to each other otherwise.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Int64
from pydantic import BaseModel, ConfigDict, ValidationError

from mpdit.data.latents import (
    LABELS,
    MANIFEST,
    LatentSource,
    LatentStore,
    Manifest,
    StorePlan,
    checksum,
    shard_name,
)
from mpdit.errors import ConfigError
from mpdit.runtime.progress import Progress

PLAN = "encoding.json"
_SETTINGS = [
    key for kind in (StorePlan, LatentSource) for key in kind.model_fields if key != "source"
]
SHARDS = 256
SMALLEST_SHARD = 1024


Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel."""


class Encoder(ABC):
    """What a store is made from."""

    plan: StorePlan
    labels: Int64[np.ndarray, " images"]
    statistics: Statistics | None = None
    """Those that come with the source."""

    @abstractmethod
    def moments(
        self, start: int, stop: int, advance: Callable[[int], None]
    ) -> Float16[np.ndarray, "images flips 2 channels size size"]:
        """Those of images ``start`` to ``stop``; ``advance`` hears how many were done."""


class _Done(BaseModel):
    """What is kept beside a finished shard: its checksum, and sums over its sampled latents."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    sha256: str
    total: tuple[float, ...]
    squares: tuple[float, ...]


def shard_images(images: int) -> int:
    """Images a shard: few enough shards that a reader keeps all of them open."""
    return max(SMALLEST_SHARD, -(-images // SHARDS))


def build_store(encoder: Encoder, path: Path, rank: int, processes: int) -> Manifest | None:
    """Make this process's shards; in the first process, wait for the others and finish.

    Returns:
        the finished store's manifest, in the first process.

    Raises:
        ConfigError: when the folder holds a store that was made with other settings, or latents
            are not finite.
        OSError: when the disk is full.
    """
    plan = encoder.plan
    if (path / MANIFEST).exists():
        manifest = LatentStore(path).manifest
        _check_same(manifest, plan, path)
        return manifest if rank == 0 else None
    _begin(encoder, path)
    mine = range(rank, plan.shards, processes)
    todo = [shard for shard in mine if _done(path, shard) is None]
    sizes = {shard: stop - start for shard in mine for start, stop in [plan.shard_range(shard)]}
    _check_space(path, plan, sum(sizes[shard] for shard in todo) * processes)
    done = sum(sizes.values()) - sum(sizes[shard] for shard in todo)
    title = "encode" if processes == 1 else f"encode, process {rank} of {processes}"
    with Progress(title, sum(sizes.values()), done) as progress:
        for shard in todo:
            start, stop = plan.shard_range(shard)
            moments = encoder.moments(start, stop, progress.advance)
            broken = np.flatnonzero(~np.isfinite(moments).all(axis=(1, 2, 3, 4, 5)))
            if len(broken):
                raise ConfigError(
                    f"the latents of image {start + broken[0]} (of {len(broken)} in shard {shard}) "
                    "are not finite in float16: the images, the VAE or the latents are broken"
                )
            _write_shard(path, shard, moments)
    return _finish(encoder, path) if rank == 0 else None


def _begin(encoder: Encoder, path: Path) -> None:
    """Make the folder, or check that it was begun with the same settings."""
    path.mkdir(parents=True, exist_ok=True)
    there = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    if there and PLAN not in there:
        raise ConfigError(f"{path} holds other things: a latent store needs a folder of its own")
    if PLAN not in there:
        _write(path / PLAN, encoder.plan.model_dump_json(indent=1))
    try:
        begun = StorePlan.model_validate_json((path / PLAN).read_bytes())
    except ValidationError:
        raise ConfigError(f"{path / PLAN} is damaged: delete {path} and begin again") from None
    _check_same(begun, encoder.plan, path)


def _check_same(there: StorePlan, here: StorePlan, path: Path) -> None:
    """Refuse to go on with other settings."""
    old, new = ({**dict(plan), **dict(plan.source)} for plan in (there, here))
    differing = [
        f"{key} {old[key]} there, {new[key]} here" for key in _SETTINGS if old[key] != new[key]
    ]
    if differing:
        raise ConfigError(
            f"{path} was begun with other settings ({'; '.join(differing)}). "
            "Use them again, or another folder"
        )


def _check_space(path: Path, plan: StorePlan, images: int) -> None:
    """Say now what would fail hours later."""
    need = images * plan.flips * plan.row_bytes
    free = shutil.disk_usage(path).free
    if need > free:
        raise ConfigError(
            f"{path} needs {need / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB left"
        )


def _done(path: Path, shard: int) -> _Done | None:
    """The record of a finished shard."""
    file = path / shard_name(shard)
    try:
        done = _Done.model_validate_json(file.with_suffix(".json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return done if file.exists() else None


def _write_shard(
    path: Path, shard: int, moments: Float16[np.ndarray, "images flips 2 channels size size"]
) -> None:
    file = path / shard_name(shard)
    _write(file, moments)
    mean, std = (moments[:, :, part].astype(np.float64) for part in (0, 1))
    axes = (0, 1, 3, 4)
    done = _Done(
        sha256=checksum(file),
        total=tuple(mean.sum(axes).tolist()),
        squares=tuple((mean**2 + std**2).sum(axes).tolist()),  # E[x²] of x ~ N(mean, std²)
    )
    _write(file.with_suffix(".json"), done.model_dump_json())


def _write(file: Path, content: str | np.ndarray) -> None:
    """Write text, or an array as .npy, aside; sync; rename."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            if isinstance(content, str):
                handle.write(content.encode())
            else:
                np.save(handle, content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(file)
    except OSError as error:  # numpy's own, for a short write, says neither why nor where
        why = error.errno or errno.ENOSPC
        raise OSError(why, os.strerror(why), str(file)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _finish(encoder: Encoder, path: Path) -> Manifest:
    """Wait for all shards and write labels and manifest."""
    plan = encoder.plan
    while missing := [shard for shard in range(plan.shards) if _done(path, shard) is None]:
        time.sleep(min(5.0, 0.1 * len(missing)))
    done = [done for shard in range(plan.shards) if (done := _done(path, shard))]
    for left in path.glob(".*.tmp"):  # of processes that were killed
        left.unlink()
    _write(path / LABELS, encoder.labels)
    count = plan.images * plan.flips * plan.size**2
    mean = np.sum([part.total for part in done], axis=0) / count
    variance = np.sum([part.squares for part in done], axis=0) / count - mean**2
    computed = tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
    means, stds = encoder.statistics or computed
    sums = {shard_name(shard): part.sha256 for shard, part in enumerate(done)}
    sums[LABELS] = checksum(path / LABELS)
    manifest = Manifest(**dict(plan), mean=means, std=stds, sha256=sums)
    _write(path / MANIFEST, json.dumps(manifest.model_dump(), indent=1))
    LatentStore(path)
    return manifest
