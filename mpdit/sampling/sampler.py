"""Drawing the sample sets of a trained run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from mpdit.config import RunConfig
from mpdit.data.datasets import images_by_class
from mpdit.disk import npz
from mpdit.disk.identity import Identity
from mpdit.disk.npz import DamagedError
from mpdit.disk.rundir import RunDir
from mpdit.ema.posthoc import reconstruct
from mpdit.ema.power import SnapshotFile, snapshot_file, whole_model
from mpdit.encoding.decoder import open_decoder
from mpdit.errors import ConfigError
from mpdit.invocation import typed
from mpdit.model import DiT
from mpdit.runtime.devices import set_precision
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Interrupted, Session, log
from mpdit.sampling.drawing import Drawing, NonFiniteSamplesError, draw
from mpdit.sampling.sampleset import Shards, shards_folder, to_uint8
from mpdit.training import checkpoint
from mpdit.training.trainer import build_model

ALONE = World()


def sample_run(
    config: RunConfig, session: Session, device: torch.device, world: World = ALONE
) -> None:
    """Write all of the run's own sample sets (`draw_set`), ``evaluate.repeats`` of them."""
    for repeat in range(config.evaluate.repeats):
        draw_set(config, session, Drawing.of_run(config, repeat), device, world)


def samples_file(run: RunDir, name: str = "samples") -> Path:
    """A set by its name, in ADM's layout: arr_0 uint8 (N, H, W, C), arr_1 labels (N,)."""
    return run.samples / f"{name}.npz"


def draw_set(
    config: RunConfig,
    session: Session,
    drawing: Drawing,
    device: torch.device,
    world: World = ALONE,
    out: Path | None = None,
    again: bool = False,
) -> Path:
    """Write a sample set and a grid of its first images, resuming after the last whole batch.

    Batches are kept in a folder beside the set until all exist; several processes share them. An
    existing set is left unchanged, unless its file is damaged.

    Args:
        config: the batch size, and whether to compile.
        out: the file to write; None is the run's own `samples_file` of the drawing's name.
        again: whether to draw an existing set again.

    Returns:
        the file.

    Raises:
        Interrupted: when a signal asked to stop; whole batches are kept.
        ConfigError: when the weights or the VAE are not available, the folder holds batches of
            another set, or the file or the weights belong to another run.
        NonFiniteSamplesError: when samples are not finite; the batches before are kept.
    """
    file = out or samples_file(session.run, drawing.name)
    identity = _identity(session, drawing)
    shards = Shards(shards_folder(file), drawing, config.sample.batch_size, identity)
    shards.check(world)
    if world.largest(not again and _is_drawn(file, identity, drawing.count)):
        if world.main and shards.folder.exists():  # the process that wrote the set was killed
            shards.finish(file, session.run.class_names())
        return file
    drawing = replace(drawing, images=_images_by_class(session.run, drawing))
    shards = replace(shards, drawing=drawing)
    shards.claim(world)
    mine = shards.batches[world.rank :: world.size]
    pending = [indices for indices in mine if not shards.is_drawn(indices)]
    steps, size = drawing.steps, config.sample.batch_size
    done = (len(mine) - len(pending)) * steps
    if done:
        log.info("resuming after %d of %d batches of samples", done // steps, len(mine))
    session.stage("sample", done, len(mine) * steps)

    def on_step() -> None:
        nonlocal done
        done += 1
        session.check_stop()
        # a step is its share of an image's steps, and the other processes are as fast:
        # images/s counts finished images
        session.advance(done, size / steps * world.size)

    try:
        if pending:
            _draw_batches(config, session.run, drawing, device, shards, pending, on_step)
    except Interrupted:
        pass  # raised below, when all processes know
    if stop := world.largest(session.stop_signal):
        raise Interrupted(stop)
    if world.main:
        shards.join(file, session.run.class_names())
    return file


def _images_by_class(run: RunDir, drawing: Drawing) -> tuple[int, ...] | None:
    """The images of each class as training recorded them, else counted in the data if needed.

    Raises:
        ConfigError: when the data are missing or damaged, or no class can be drawn.
    """
    if noted := run.images_by_class():
        return noted
    return images_by_class(drawing.run.data) if drawing.labels == "data" else None


def _identity(session: Session, drawing: Drawing) -> Identity:
    """The run's identity, with the snapshots' data where the data were not read."""
    identity = session.identity
    if identity.data is None:
        for file in sorted(session.run.ema.glob(f"std*_step{drawing.snapshot:08d}.safetensors")):
            with suppress(DamagedError, OSError), SnapshotFile(file) as snapshot:
                return identity.filled(snapshot.mark)
    return identity


def _is_drawn(file: Path, identity: Identity, count: int) -> bool:
    """Whether a set exists; a damaged one is logged. Its images are not read.

    Raises:
        ConfigError: when it is of another run.
    """
    if not file.exists():
        return False
    try:
        held = npz.contents(file)
        if not held.usable:
            raise DamagedError(f"{file} is damaged: it holds no images")
        if held.shape[0] != count:
            raise DamagedError(f"{file} is damaged: it holds {held.shape[0]:,} images of {count:,}")
    except DamagedError as error:
        log.warning("%s; it is drawn again", error)
        return False
    identity.check(held.mark, file, "was drawn")
    return True


def _draw_batches(
    config: RunConfig,
    run: RunDir,
    drawing: Drawing,
    device: torch.device,
    shards: Shards,
    pending: list[range],
    on_step: Callable[[], None],
) -> None:
    set_precision(drawing.precision, "sample.precision")
    decode = open_decoder(config.data, device)
    model = load_average(run, drawing.ema_std, drawing.snapshot, device)
    model.fold()
    if config.sample.compile:
        model.compile_blocks()
    for indices in pending:
        x = decode(draw(model, drawing, indices, device, on_step))
        if not x.isfinite().all():
            raise NonFiniteSamplesError(drawing, indices)
        shards.save(indices, to_uint8(x.cpu().numpy(), drawing.to_uint8))


def load_average(run: RunDir, std: float, step: int, device: torch.device) -> DiT:
    """The run's model with the average of relative width ``std`` after training step ``step``.

    A stored average is read; any other is reconstructed from the stored widths. If its file is
    damaged, the average is taken from the checkpoint of that step.

    Raises:
        ConfigError: when there are no snapshots of that step, naming the newest; when one is of
            another run, or damaged and there is no such checkpoint.
    """
    config = run.config()
    check_snapshot(run, config, step)
    model = build_model(config, device)
    file = snapshot_file(run.ema, std, step)
    if round(std, 3) == std and file.exists():
        try:
            with SnapshotFile(file) as snapshot:
                Identity.of(config).check(snapshot.mark, file, "was trained")
                state = snapshot.read_all()
        except DamagedError as error:
            newest = checkpoint.load_newest(run.checkpoints, device, log.warning) or {}
            average = newest.get("ema", {}).get(str(std))
            if average is None or newest["step"] != step or not checkpoint.has_averages(newest):
                raise ConfigError(f"{error}. Draw from another --step") from None
            log.warning("%s; the average is taken from the checkpoint of step %d", error, step)
            model.load_state_dict(newest["model"])
            state = whole_model(model, average)
    else:
        log.info("reconstructing the average of width %g from the snapshots", std)
        state = reconstruct(run, std, step)
    model.load_state_dict(state)
    return model.eval()


def check_snapshot(run: RunDir, config: RunConfig, step: int) -> None:
    """Raise ConfigError, naming the newest, when the run has no EMA snapshots of ``step``."""
    stored = [
        int(file.stem.rpartition("_step")[2])
        for file in run.ema.glob("std*_step*[0-9].safetensors")
    ]
    if step in stored:
        return
    what = f"{run.path} has no EMA snapshots of step {step:,}"
    if not stored:
        raise ConfigError(f"{what}, nor of any other: train it first ({typed('run', run.path)})")
    raise ConfigError(f"{what} of {config.train.steps:,}; the newest are of --step {max(stored)}")
