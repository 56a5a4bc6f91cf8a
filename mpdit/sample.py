"""A sample set of a trained run: ``mpdit sample RUN``, ``python -m mpdit.sample RUN``."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before torch is imported, which takes seconds
    from mpdit.runtime import signals

    signals.note()

    from mpdit.commandline.door import door

    sys.exit(door(sys.argv[1:], "mpdit.sample", "sample"))

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpdit.config import RunConfig
from mpdit.disk.rundir import RunDir, chosen_run
from mpdit.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, ConfigError, say
from mpdit.runtime.devices import prepare
from mpdit.runtime.distributed import join
from mpdit.runtime.session import Interrupted, open_session
from mpdit.sampling.drawing import Drawing, NonFiniteSamplesError
from mpdit.sampling.request import asked
from mpdit.sampling.sampler import check_snapshot, draw_set
from mpdit.sampling.sampleset import grid_file, shards_folder


def sample(
    run: str,
    results: Path,
    classes: str | None,
    step: int | None,
    seed: int | None,
    out: Path | None,
    **given: Any,
) -> int:
    """``mpdit sample``: draw a set into its own file, without changing the run.

    Args:
        classes: such as ``3,7,10-19``; None: all.
        step: training step of the EMA snapshot; None: the last.
        seed: seed of the noise; None: the run's.
        out: the .npz; None: in the current folder, named by what differs from the run's set.
        given: values of the config's section ``sample`` that replace the run's.

    Returns:
        an exit status.
    """
    source = chosen_run(run, results)
    try:
        config, drawing = _wanted(source, classes, step, seed, given)
        out = Path(out or f"{source.name}_{drawing.name}.npz")
        _check_out(source, out)
        with join() as world, open_session(source, world.main, recorded=False) as session:
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


def _wanted(
    run: RunDir, classes: str | None, step: int | None, seed: int | None, given: Mapping[str, Any]
) -> tuple[RunConfig, Drawing]:
    """The run's config with the given options, and the set they make.

    Raises:
        ConfigError: naming the option that is wrong.
    """
    own = run.load()
    chosen = None if classes is None else _classes(classes, own.data.spec.classes)
    try:
        config, drawing = asked(own, given, seed, chosen)
    except ConfigError as error:
        option = error.key.replace("_", "-")
        raise ConfigError(
            error.message, f"--{option}" if option and "." not in option else option
        ) from None
    if step is not None:
        drawing = replace(drawing, snapshot=step)
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
        return  # drawing resumes, after a check that the batches are of this set
    for file in (out, grid_file(out)):
        if file.exists():
            raise ConfigError(f"{file} already exists", "--out")
