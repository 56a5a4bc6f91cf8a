"""Samples from a trained run: respaced DDPM with learned variance and classifier-free guidance.

Sample i has label i mod classes, and its noise depends on (seed, i) alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.data.datasets import to_uint8
from mpdit.diffusion import Diffusion
from mpdit.model import DiT
from mpdit.randomness import generator
from mpdit.session import Session, log
from mpdit.study.rundir import RunDir, write_atomic
from mpdit.train import load_snapshot

GRID_COLUMNS = 10
GRID_ROWS = 8


@torch.no_grad()
def draw(
    model: DiT,
    diffusion: Diffusion,
    config: RunConfig,
    indices: range,
    device: torch.device,
    on_step: Callable[[], None] = lambda: None,
) -> Float[Tensor, "batch channels height width"]:
    """The samples with these indices, in [-1, 1] (not clipped); ``on_step`` is called each step."""
    spec, sample = config.data.spec, config.sample
    shape = (spec.channels, spec.size, spec.size)
    # one generator a sample: its noise does not know what it is batched with
    randoms = [generator(config.seed, "sample", i, device) for i in indices]

    def noise() -> Float[Tensor, "batch channels height width"]:
        return torch.stack([torch.randn(shape, generator=r, device=device) for r in randoms])

    y = labels(indices, spec.classes).to(device)
    process = diffusion.respace(sample.steps)
    x = noise()
    for i in reversed(range(sample.steps)):
        t = process.timestep_map[i].expand(len(indices))
        output = model.guided(x, t, y, sample.guidance)  # (B, 2C, H, W)
        x = process.step(output, x, torch.full_like(t, i), noise())
        on_step()
    return x


def labels(indices: range, classes: int) -> Int64[Tensor, " batch"]:
    """Every class equally often."""
    return torch.tensor([i % classes for i in indices])


def sample_run(config: RunConfig, session: Session, device: torch.device) -> None:
    """Write samples/samples.npz and grid.png, going on after the last whole batch.

    Raises:
        Interrupted: when a signal asked to stop; whole batches are kept.
    """
    run, count, size = session.run, config.sample.count, config.sample.batch_size
    if samples_file(run).exists():
        return
    run.samples.mkdir(exist_ok=True)
    batches = [range(start, min(start + size, count)) for start in range(0, count, size)]
    pending = [indices for indices in batches if not _shard(run, indices).exists()]
    steps = config.sample.steps
    done = (len(batches) - len(pending)) * steps
    if done:
        log.info("going on after %d of %d batches of samples", done // steps, len(batches))
    session.stage("sample", done, len(batches) * steps)
    model = load_snapshot(config, run.ema, device)
    model.fold()
    diffusion = Diffusion().to(device)

    def on_step() -> None:
        nonlocal done
        done += 1
        session.check_stop()
        # a step is the share of an image's steps: images/s counts finished images
        session.advance(done, size / steps)

    for indices in pending:
        x = draw(model, diffusion, config, indices, device, on_step)
        _save(_shard(run, indices), arr_0=to_uint8(x.float().cpu().numpy()))
    images = np.concatenate([np.load(_shard(run, indices))["arr_0"] for indices in batches])
    write_grid(images, run.samples / "grid.png")
    _save(
        samples_file(run),
        arr_0=images,
        arr_1=labels(range(count), config.data.spec.classes).numpy(),
    )
    for shard in run.samples.glob("shard_*"):
        shard.unlink()


def samples_file(run: RunDir) -> Path:
    """ADM's layout: arr_0 uint8 (N, H, W, C), arr_1 labels (N,)."""
    return run.samples / "samples.npz"


def write_grid(images: UInt8[np.ndarray, "n height width channels"], file: Path) -> None:
    """A PNG of the first samples, ten to a row, small images enlarged without smoothing."""
    shown = images[: GRID_COLUMNS * GRID_ROWS]
    rows = [shown[i : i + GRID_COLUMNS] for i in range(0, len(shown), GRID_COLUMNS)]
    rows = [row for row in rows if len(row) == len(rows[0])]
    margin = ((1, 1), (1, 1), (0, 0))  # dark digits on a dark ground need a line between them
    tiled = np.concatenate(
        [np.concatenate([np.pad(i, margin, constant_values=128) for i in row], 1) for row in rows]
    )
    factor = max(1, 32 // images.shape[1])
    large = tiled.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(large.squeeze(-1) if large.shape[-1] == 1 else large).save(buffer, "PNG")
    write_atomic(file, buffer.getvalue())


def _shard(run: RunDir, indices: range) -> Path:
    """By both ends: the batch size may be another after a resume."""
    return run.samples / f"shard_{indices.start:08d}-{indices.stop:08d}.npz"


def _save(file: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(file, buffer.getvalue())
