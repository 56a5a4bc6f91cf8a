"""Sample sets of a trained run, by the run itself and by ``python -m mpdit.sample RUN``."""

from __future__ import annotations

from mpdit.runtime import signals

if __name__ == "__main__":
    signals.note()  # before torch is imported

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mpdit.config import RunConfig, make_run
from mpdit.disk.rundir import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    RunDir,
    say,
)
from mpdit.ema.posthoc import reconstruct
from mpdit.ema.power import snapshot_file
from mpdit.encoding.decoder import open_decoder
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.runtime.devices import prepare, set_precision
from mpdit.runtime.distributed import World, join
from mpdit.runtime.session import Interrupted, Session, log, open_session
from mpdit.sampling.drawing import Drawing, NonFiniteSamplesError, draw
from mpdit.sampling.sampleset import Shards, grid_file, shards_folder, to_uint8
from mpdit.training.trainer import build_model

__all__ = ["Drawing", "draw_set", "sample_run", "samples_file"]

ALONE = World()
HELP = """\
Draw samples from a run's averaged weights: an .npz as ADM's (arr_0 uint8 images, arr_1 labels) and
a PNG grid of the first of them. Every option is the run's own unless given; the run's own files are
left as they are. Sample i has the same noise whatever the batch size or the number of processes;
its image differs by the rounding of sums.

Stopped at any moment, the same command goes on. On several GPUs:
  torchrun --nproc-per-node 8 -m mpdit.sample RUN
"""


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
) -> Path:
    """Write a sample set and a grid of its first images, going on after the last whole batch.

    Batches are kept in a folder beside the set until all are there; several processes take them in
    turns. A set that is there already is left as it is.

    Args:
        config: says the batch size, and whether to compile.
        out: the file to write; None is the run's own `samples_file` of the drawing's name.

    Returns:
        the file.

    Raises:
        Interrupted: when a signal asked to stop; whole batches are kept.
        ConfigError: when the weights or the VAE are not to be had, or the folder of batches is of
            another set.
        NonFiniteSamplesError: when samples are no numbers; the batches before are kept.
    """
    file = out or samples_file(session.run, drawing.name)
    shards = Shards(shards_folder(file), drawing, config.sample.batch_size)
    shards.check(world)
    if world.largest(world.main and file.exists()):
        if world.main and shards.folder.exists():  # what wrote the set was killed
            shards.finish(file)
        return file
    shards.claim(world)
    mine = shards.batches[world.rank :: world.size]
    pending = [indices for indices in mine if not shards.file(indices).exists()]
    steps, size = drawing.steps, config.sample.batch_size
    done = (len(mine) - len(pending)) * steps
    if done:
        log.info("going on after %d of %d batches of samples", done // steps, len(mine))
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
        shards.join(file)
    return file


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

    It is read where it is stored, else reconstructed from the widths that are.

    Raises:
        ConfigError: when there are no snapshots of that step, naming the newest; when one is
            damaged.
    """
    config = run.config()
    check_snapshot(run, config, step)
    model = build_model(config, device)
    file = snapshot_file(run.ema, std, step)
    if round(std, 3) == std and file.exists():
        try:
            state = load_file(file, device=str(device))
        except SafetensorError as error:
            raise ConfigError(f"{file} is damaged: {error}") from None
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
        raise ConfigError(
            f"{what}, nor of any other: train it first (python -m mpdit.run {run.path})"
        )
    raise ConfigError(f"{what} of {config.train.steps:,}; the newest are of --step {max(stored)}")


def main() -> int:
    given = _parser().parse_args()
    run = RunDir(given.run)
    try:
        config, drawing = _wanted(run, given)
        out = Path(given.out or f"{run.name}_{drawing.name}.npz")
        _check_out(run, out)
        with join() as world, open_session(run, world.main, recorded=False) as session:
            device = prepare("float32", world.local_rank)
            draw_set(config, session, drawing, device, world, out)
    except Interrupted as signal_name:
        print(f"stopped by {signal_name}; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ConfigError, OSError) as error:
        status = say(error)
        return EXIT_FAILED if isinstance(error, NonFiniteSamplesError) else status
    if world.main:
        print(f"{out}  {drawing.count:,} samples; {grid_file(out)}")
    return EXIT_DONE


def _wanted(run: RunDir, given: argparse.Namespace) -> tuple[RunConfig, Drawing]:
    """The run's config with the given options in place of its own, and the set they make.

    Raises:
        ConfigError: naming the option that is wrong.
    """
    own = run.config()
    tree = own.resolved()
    for key in tree["sample"].keys() & vars(given).keys():
        tree["sample"][key] = getattr(given, key)
    tree["seed"] = own.seed if given.seed is None else given.seed
    try:
        config = make_run(tree)
    except ConfigError as error:
        option = error.key.rpartition(".")[2].replace("_", "-")
        raise ConfigError(error.message, f"--{option}") from None
    drawing = replace(Drawing.of_run(config), run=own)
    if given.classes is not None:
        classes = _classes(given.classes, own.data.spec.classes)
        drawing = replace(drawing, classes=classes)
    if given.step is not None:
        drawing = replace(drawing, snapshot=given.step)
    check_snapshot(run, own, drawing.snapshot)
    return config, drawing


def _classes(text: str, known: int) -> tuple[int, ...]:
    """``3,7,0-9`` → the labels, in that order, each once.

    Raises:
        ConfigError: for what is no such list, or no class of the data.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ConfigError(f"{part!r} is no class and no range (as in 3,7,10-19)", "--classes")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < known:
            raise ConfigError(f"{part} is not among the classes 0-{known - 1}", "--classes")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def _check_out(run: RunDir, out: Path) -> None:
    """Raise ConfigError when the set would be written among the run's own files, or over others."""
    if out.suffix != ".npz":
        raise ConfigError(f"{out} does not end in .npz", "--out")
    if out.resolve().is_relative_to(run.path.resolve()):
        raise ConfigError(f"{out} is among the run's own files", "--out")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {out.absolute().parent}", "--out")
    if (shards_folder(out) / "set.json").exists():
        return  # goes on, once it has been seen that these are batches of the same set
    for file in (out, grid_file(out)):
        if file.exists():
            raise ConfigError(f"{file} is there already", "--out")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mpdit.sample",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run's folder")
    add("--classes", metavar="3,7,10-19", default=None, help="labels, in turn (all)")
    add("--count", type=int, metavar="N", help="samples")
    add("--guidance", type=float, metavar="W", help="1 is unguided")
    add("--ema-std", type=float, metavar="S", help="relative width of the averaged weights")
    add("--step", type=int, metavar="N", default=None, help="of the EMA snapshot (the last)")
    add("--solver", help="ddpm, ddim or dpm++")
    add("--steps", type=int, metavar="N", help="of the solver")
    add("--seed", type=int, default=None, help="of the noise (the run's)")
    add("--precision", help="float32, tf32 or bfloat16")
    add("--to-uint8", help="round or truncate")
    add("--batch-size", type=int, metavar="B")
    add("--compile", action=argparse.BooleanOptionalAction)
    add("--out", type=Path, metavar="FILE.npz", default=None, help="(./RUN_WHAT-DIFFERS.npz)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
