"""``python -m mpdit.evaluate RUN``: measure a finished run again.

With further metrics, or over EMA widths, guidance scales and training steps.
"""

from __future__ import annotations

from mpdit.runtime import signals

if __name__ == "__main__":
    signals.note()  # before torch is imported

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mpdit.catalogue import METRICS
from mpdit.data.preflight import check_evaluable
from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_BUSY, EXIT_DONE, EXIT_INTERRUPTED, ConfigError, command, explain
from mpdit.evaluation.evaluation import Evaluation, sample_sets
from mpdit.runtime.devices import prepare
from mpdit.runtime.session import Interrupted, log, open_session
from mpdit.sampling.drawing import Drawing
from mpdit.sampling.sampler import check_snapshot
from mpdit.text import run_command

Section = TypeVar("Section", bound=BaseModel)


def measure_again(
    run: RunDir,
    ema_stds: Sequence[float] = (),
    guidances: Sequence[float] = (),
    wanted: Sequence[str] = (),
    count: int | None = None,
    steps: Sequence[int] = (),
) -> int:
    """Measure a finished run over EMA widths, guidance scales and steps, or by further metrics.

    Args:
        ema_stds, guidances, steps: each width with each scale after each training step; none is the
            run's own.
        wanted: metrics; none are the run's own.
        count: samples of each set; None is as many as the run has.

    Returns:
        an exit status: done, or interrupted with what was measured kept.

    Raises:
        ConfigError: when the run is not finished, or something asked for cannot be had.
        BusyError: when another process is executing the run.
    """
    config = run.load()
    own = config.sample
    asked = [
        _changed(own, ema_std=std, guidance=scale, count=own.count if count is None else count)
        for std, scale in product(ema_stds or [own.ema_std], guidances or [own.guidance])
    ]
    judge = _changed(config.evaluate, metrics=wanted or config.evaluate.metrics)
    for sample in asked:
        check_evaluable(config.model_copy(update={"evaluate": judge, "sample": sample}))
    for step in steps:
        check_snapshot(run, config, step)
    at = steps or [config.train.steps]
    sets = [d for sample in asked for step in at for d in sample_sets(config, sample, step)]
    with run.lease():
        said = run.state()
        if said is None or not run.is_done():
            raise ConfigError(f"{run.path} is not finished: run it first ({run_command(run.path)})")
        try:
            with open_session(run) as session:
                device = prepare(config.train.precision)
                judged = config.model_copy(update={"evaluate": judge})
                _sweep(Evaluation(judged, session, device), sets)
        except Interrupted as signal_name:
            print(f"stopped by {signal_name}; the same command resumes", file=sys.stderr)
            return EXIT_INTERRUPTED
        finally:
            run.write_state(said)  # the run's last word stays its own
    return EXIT_DONE


def _sweep(evaluation: Evaluation, sets: Sequence[Drawing]) -> None:
    """Append the rows of one set after the other."""
    for number, drawing in enumerate(sets, start=1):
        rows = evaluation.missing(drawing)
        evaluation.append(rows)
        where = f"{number} of {len(sets)}, {drawing.name}"
        for row in rows:
            log.info("%s: %s (%s) %.4g", where, row["metric"], row["role"], row["value"])
        if not rows:
            log.info("%s: measured already", where)


def _changed(section: Section, **changes: object) -> Section:
    """A section of the config with other values, checked like those of a file.

    Raises:
        ConfigError: naming the command's option that is wrong.
    """
    try:
        return type(section).model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        wrong = explain(error, METRICS)
        option = wrong.key.partition(".")[0].replace("_", "-")
        raise ConfigError(wrong.message, f"--{option}") from None


@command
def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mpdit.evaluate",
        description="Measure a finished run again: each EMA width with each guidance scale after "
        "each training step.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run's folder")
    several: dict[str, Any] = {"nargs": "+", "default": []}
    add("--ema-std", type=float, metavar="S", help="relative widths (the run's)", **several)
    add("--guidance", type=float, metavar="W", help="scales; 1 is unguided (the run's)", **several)
    add("--step", type=int, metavar="N", help="training steps with EMA snapshots", **several)
    add("--metrics", metavar="NAME", help=f"of {', '.join(METRICS)} (the run's)", **several)
    add("--count", type=int, metavar="N", help="samples of each set (the run's)")
    options = parser.parse_args()
    run = RunDir(options.run)
    try:
        settings = options.ema_std, options.guidance, options.metrics, options.count, options.step
        return measure_again(run, *settings)
    except BusyError as error:
        print(error, file=sys.stderr)
        return EXIT_BUSY


if __name__ == "__main__":
    sys.exit(main())
