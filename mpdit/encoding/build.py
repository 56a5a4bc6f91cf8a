"""Make a latent store shard by shard, by several processes, resumed after any interruption.

A shard is written aside, synced, summarized in ``moments-00000.json``, and then counts as done
while its images do not change. Each process makes every ``processes``-th shard, and the first
process writes the manifest when all shards exist. The processes do not communicate otherwise.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mpdit.data.latents import (
    LABELS,
    MANIFEST,
    LatentStore,
    Manifest,
    StorePlan,
    checksum,
    shard_name,
)
from mpdit.disk import lease
from mpdit.encoding.shards import Done, Encoder, done, make_shard, record, record_file, write
from mpdit.errors import ConfigError
from mpdit.progress import Progress

PLAN = "encoding.json"
_IMAGES = {"images", "classes", "hash", "content"}
"""The fields of a plan that the images determine. A store begun with other images is restarted."""
SHARDS = 256
SMALLEST_SHARD = 1024


def shard_images(images: int) -> int:
    """Images a shard: few enough shards that a reader keeps all of them open."""
    return max(SMALLEST_SHARD, -(-images // SHARDS))


def build_store(encoder: Encoder, path: Path, rank: int, processes: int) -> Manifest | None:
    """Make this process's shards; in the first process, wait for the others and finish.

    Returns:
        the finished store's manifest, in the first process.

    Raises:
        ConfigError: when the folder holds a store of other settings or images, when latents are not
            finite, and when images change meanwhile.
        OSError: when the disk is full.
    """
    if (path / MANIFEST).exists():
        manifest = LatentStore(path).manifest
        _check_finished(encoder, manifest, path, range(rank, manifest.shards, processes))
        return manifest if rank == 0 else None
    plan = _begin(encoder, path)
    mine = range(rank, plan.shards, processes)
    todo = [shard for shard in mine if done(encoder, plan, path, shard) is None]
    for shard in todo:
        record_file(path, shard).unlink(missing_ok=True)  # of other images
    sizes = {shard: stop - start for shard in mine for start, stop in [plan.shard_range(shard)]}
    _check_space(path, plan, sum(sizes[shard] for shard in todo) * processes)
    already = sum(sizes.values()) - sum(sizes[shard] for shard in todo)
    title = "encode" if processes == 1 else f"encode, process {rank} of {processes}"
    with Progress(title, sum(sizes.values()), already) as progress:
        for shard in todo:
            make_shard(encoder, plan, path, shard, progress.advance)
    return _finish(encoder, plan, path) if rank == 0 else None


def _begin(encoder: Encoder, path: Path) -> StorePlan:
    """Make the folder, or read the plan that was begun in it.

    Returns:
        the plan, with the shard size of the begun store.
    """
    path.mkdir(parents=True, exist_ok=True)
    there = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    if there and PLAN not in there:
        raise ConfigError(f"{path} holds other files: a latent store needs a folder of its own")
    if PLAN not in there:
        write(path / PLAN, encoder.plan.model_dump_json(indent=1))
    try:
        begun = StorePlan.model_validate_json((path / PLAN).read_bytes())
    except ValidationError:
        raise ConfigError(f"{path / PLAN} is damaged: delete {path} and begin again") from None
    differing = _differing(begun, encoder.plan)
    if not differing:
        return begun
    if not differing.keys() <= _IMAGES:
        raise ConfigError(
            f"{path} was begun with other settings ({'; '.join(differing.values())}). "
            "Use them again, or another folder"
        )
    plan = encoder.plan.model_copy(update={"shard_images": begun.shard_images})
    _restart(encoder, begun, plan, path)
    return plan


def _restart(encoder: Encoder, begun: StorePlan, plan: StorePlan, path: Path) -> None:
    """Restart a begun store, keeping the shards whose images are the same.

    Raises:
        ConfigError: when there are shards but none can be kept: it may be another data set.
    """
    there = [shard for shard in range(begun.shards) if record(path, shard) is not None]
    kept = [
        shard
        for shard in there
        if shard < plan.shards
        and (found := done(encoder, plan, path, shard)) is not None
        and found.images is not None
    ]
    images = f"{begun.images:,} there, {plan.images:,} here"
    if there and not kept:
        raise ConfigError(
            f"{path} was begun with other images ({images}), and none of its finished shards is of "
            f"these. Use another folder, or delete {path} and run the same command again"
        )
    for shard in set(there) - set(kept):
        record_file(path, shard).unlink(missing_ok=True)
    write(path / PLAN, plan.model_dump_json(indent=1))
    print(
        f"{path}: the images have changed since it was begun ({images}); "
        f"{len(kept)} of {len(there)} finished shards are of unchanged images and kept",
        file=sys.stderr,
    )


def _check_finished(
    encoder: Encoder, manifest: Manifest, path: Path, shards: Iterable[int]
) -> None:
    """Refuse a finished store that was made with other settings or images."""
    differing = _differing(manifest, encoder.plan)
    if not differing.keys() <= _IMAGES:
        raise ConfigError(
            f"{path} was made with other settings ({'; '.join(differing.values())}). "
            "Use them again, or another folder"
        )
    changed = [s for s in shards if not differing and done(encoder, manifest, path, s) is None]
    if changed:
        differing = {"": f"images of shard {changed[0]} have changed"}
    if differing:
        raise ConfigError(
            f"{path} is finished, and made of other images ({'; '.join(differing.values())}). "
            f"Use another folder; or delete {path / MANIFEST} and run the same command again, "
            "which keeps the shards whose images are the same"
        )


def _differing(there: StorePlan, here: StorePlan) -> dict[str, str]:
    """Setting → its two values, for settings that differ.

    The shard size may differ. Settings that an older version did not write are not compared.
    """
    old, new = ({**dict(plan), **dict(plan.source)} for plan in (there, here))
    ignored = {"source", "shard_images"} | ({"content"} if there.source.content is None else set())
    return {
        key: f"{key} {old[key]} there, {value} here"
        for key, value in new.items()
        if key not in ignored and old[key] != value
    }


def _check_space(path: Path, plan: StorePlan, images: int) -> None:
    """Report a lack of space now, not hours later."""
    need = images * plan.flips * plan.row_bytes
    free = shutil.disk_usage(path).free
    if need > free:
        raise ConfigError(
            f"{path} needs {need / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB left"
        )


def _finish(encoder: Encoder, plan: StorePlan, path: Path) -> Manifest:
    """Wait for all shards and write labels and manifest."""
    made: dict[int, Done] = {}
    while missing := [shard for shard in range(plan.shards) if shard not in made]:
        found = {shard: done(encoder, plan, path, shard) for shard in missing}
        made |= {shard: held for shard, held in found.items() if held is not None}
        if left := plan.shards - len(made):
            time.sleep(min(5.0, 0.1 * left))
    lease.sweep(path.glob(".*"))
    write(path / LABELS, encoder.labels)
    count = plan.images * plan.flips * plan.size**2
    parts = [made[shard] for shard in range(plan.shards)]
    mean = np.sum([part.total for part in parts], axis=0) / count
    variance = np.sum([part.squares for part in parts], axis=0) / count - mean**2
    computed = tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
    means, stds = encoder.statistics or computed
    sums = {shard_name(shard): part.sha256 for shard, part in enumerate(parts)}
    sums[LABELS] = checksum(path / LABELS)
    for file in path.glob("moments-*"):
        if file.with_suffix(".npy").name not in sums:  # the store was begun with more images
            file.unlink()
    names = encoder.class_names
    manifest = Manifest(**dict(plan), mean=means, std=stds, sha256=sums, class_names=names)
    write(path / MANIFEST, json.dumps(manifest.model_dump(), indent=1))
    LatentStore(path)
    return manifest
