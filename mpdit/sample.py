"""``python -m mpdit.sample RUN``: a sample set of a trained run."""

from __future__ import annotations

from mpdit.runtime import signals

if __name__ == "__main__":
    signals.note()  # before torch is imported

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from mpdit.catalogue import SOLVERS
from mpdit.config import RunConfig, make_run
from mpdit.data.preflight import check_labels_trained
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, ConfigError, command, say
from mpdit.runtime.devices import prepare
from mpdit.runtime.distributed import join
from mpdit.runtime.session import Interrupted, open_session
from mpdit.sampling.drawing import Drawing, NonFiniteSamplesError
from mpdit.sampling.sampler import check_snapshot, draw_set
from mpdit.sampling.sampleset import grid_file, shards_folder

HELP = """\
Draw samples from a run's averaged weights: an .npz as ADM's (arr_0 uint8 images, arr_1 labels) and
a PNG grid of the first of them. Every option is the run's own unless given; the run's own files are
left as they are. Sample i has the same noise whatever the batch size or the number of processes;
its image differs by the rounding of sums.

Stopped at any moment, the same command resumes. On several GPUs:
  torchrun --nproc-per-node 8 -m mpdit.sample RUN
"""


@command
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
        print(f"stopped by {signal_name}; the same command resumes", file=sys.stderr)
        return EXIT_INTERRUPTED
    except NonFiniteSamplesError as error:
        say(error)
        return EXIT_FAILED
    if world.main:
        print(f"{out}  {drawing.count:,} samples; {grid_file(out)}")
    return EXIT_DONE


def _wanted(run: RunDir, given: argparse.Namespace) -> tuple[RunConfig, Drawing]:
    """The run's config with the given options in place of its own, and the set they make.

    Raises:
        ConfigError: naming the option that is wrong.
    """
    own = run.load()
    tree = own.resolved()
    for key in tree["sample"].keys() & vars(given).keys():
        tree["sample"][key] = getattr(given, key)
    tree["seed"] = own.seed if given.seed is None else given.seed
    try:
        config = make_run(tree)
    except ConfigError as error:
        option = error.key.rpartition(".")[2].replace("_", "-")
        raise ConfigError(error.message, f"--{option}") from None
    check_labels_trained(config)
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
        ConfigError: for text that is not such a list, and for a class that the data lack.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if match is None:
            raise ConfigError(
                f"{part!r:.80} is not a class or a range (as in 3,7,10-19)", "--classes"
            )
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
        return  # resumes, once it has been seen that these are batches of the same set
    for file in (out, grid_file(out)):
        if file.exists():
            raise ConfigError(f"{file} already exists", "--out")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mpdit.sample",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run's folder")
    add("--classes", metavar="3,7,10-19", default=None, help="to draw samples of (all)")
    add("--count", type=int, metavar="N", help="samples")
    add("--guidance", type=float, metavar="W", help="1 is unguided")
    add("--guidance-interval", type=float, nargs=2, metavar="S", help="noise levels it applies at")
    add("--ema-std", type=float, metavar="S", help="relative width of the averaged weights")
    add("--step", type=int, metavar="N", default=None, help="of the EMA snapshot (the last)")
    add("--solver", help=", ".join(SOLVERS))
    add("--labels", help="data, even or uniform")
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
