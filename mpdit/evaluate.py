"""Measure a finished run again: ``mpdit evaluate RUN``, ``python -m mpdit.evaluate RUN``.

With further metrics, or over EMA widths, guidance scales and training steps.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before torch is imported, which takes seconds
    from mpdit.runtime import signals

    signals.note()

    from mpdit.commandline.door import door

    sys.exit(door(sys.argv[1:], "mpdit.evaluate", "evaluate"))

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mpdit.catalogue import METRICS
from mpdit.data.preflight import check_evaluable
from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import RunDir, chosen_run
from mpdit.errors import EXIT_BUSY, EXIT_DONE, EXIT_INTERRUPTED, ConfigError, explain
from mpdit.evaluation.evaluation import Evaluation, sample_sets
from mpdit.invocation import typed
from mpdit.runtime.devices import prepare
from mpdit.runtime.session import Interrupted, log, open_session
from mpdit.sampling.drawing import Drawing
from mpdit.sampling.sampler import check_snapshot

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
        run: the finished run.
        ema_stds: relative EMA widths of the weights to draw samples with; empty: the run's own.
        guidances: guidance scales, each combined with each width; empty: the run's own.
        wanted: metrics; empty: the run's own.
        count: samples of each set; None: as many as the run has.
        steps: training steps whose weights are measured, each with all widths and scales; empty:
            the last step.

    Returns:
        an exit status: done, or interrupted; finished measurements are kept.

    Raises:
        ConfigError: when the run is not finished, or a requested set or metric is not available.
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
            raise ConfigError(
                f"{run.path} is not finished: run it first ({typed('run', run.path)})"
            )
        try:
            with open_session(run) as session:
                device = prepare(config.train.precision)
                judged = config.model_copy(update={"evaluate": judge})
                _sweep(Evaluation(judged, session, device), sets)
        except Interrupted as signal_name:
            print(f"stopped by {signal_name}; the same command resumes", file=sys.stderr)
            return EXIT_INTERRUPTED
        finally:
            run.write_state(said)  # the run's own last state
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


def evaluate(
    run: str,
    results: Path,
    ema_std: Sequence[float],
    guidance: Sequence[float],
    step: Sequence[int],
    metrics: Sequence[str],
    count: int | None,
) -> int:
    """``mpdit evaluate``: `measure_again` for a run's folder, name or id."""
    try:
        return measure_again(chosen_run(run, results), ema_std, guidance, metrics, count, step)
    except BusyError as error:
        print(error, file=sys.stderr)
        return EXIT_BUSY
