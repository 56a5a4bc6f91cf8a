"""How far a run's samples are from real images, appended to its evaluation.jsonl.

A run is measured at its end; ``python -m mpdit.evaluate RUN`` measures a finished one again, with
further metrics, or over EMA widths, guidance scales and training steps. What is there is never
overwritten, and the same command goes on. A row's ``role`` says what the number is of:

=======  ==========================================================================================
run      the run's own samples
limit    the same at N → ∞, with standard error and the points of the fit
repeat   another sampling seed of the same model
floor    real held-out images, as many as there are samples where there are as many
sweep    another EMA width, guidance scale, training step or count
=======  ==========================================================================================
"""

from __future__ import annotations

from mpdit.runtime import signals

if __name__ == "__main__":
    signals.note()  # before torch is imported

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from mpdit.config import METRICS, RunConfig, SampleConfig
from mpdit.data.preflight import LEAST_SAMPLES, NEED_FEATURES, check_evaluable
from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    RunDir,
    keep_rows,
    read_rows,
    say,
)
from mpdit.ema.posthoc import profile_error
from mpdit.errors import ConfigError, explain
from mpdit.evaluation import extractors, features, metrics, references
from mpdit.evaluation.extractors import Extractor, Features
from mpdit.evaluation.metrics import labels
from mpdit.evaluation.realimages import Batch, Record
from mpdit.evaluation.references import HeldOut, Reference
from mpdit.runtime.devices import prepare, set_precision
from mpdit.runtime.session import Interrupted, Session, log, open_session
from mpdit.sample import check_snapshot, draw_set
from mpdit.sampling.drawing import Drawing

Row = dict[str, Any]
Section = TypeVar("Section", bound=BaseModel)


def evaluate_run(config: RunConfig, session: Session, device: torch.device) -> Row:
    """Measure the run's own sample sets, and the floor; append what evaluation.jsonl lacks.

    All rows of a run are appended at once: with the first one the run is done.

    Returns:
        the first row, the run's own distance.

    Raises:
        ConfigError: when the extractor or the reference is not to be had.
        Interrupted: when a signal asked to stop; features are kept.
    """
    evaluation = Evaluation(config, session, device)
    sets = _sets(config, config.sample, config.train.steps)
    evaluation.append([row for drawing in sets for row in evaluation.missing(drawing)])
    return read_rows(evaluation.file)[0]


@dataclass
class Evaluation:
    """The metrics of one config over sample sets. The reference is read when it is needed."""

    config: RunConfig
    session: Session
    device: torch.device

    @property
    def file(self) -> Path:
        return self.session.run.path / "evaluation.jsonl"

    @cached_property
    def extractor(self) -> Extractor:
        return extractors.load(self.config.evaluate, self.device)

    @cached_property
    def reference(self) -> Reference:
        config = self.config
        return references.load(config.data, config.evaluate, self.extractor, self._watch)

    @cached_property
    def held_out(self) -> HeldOut | None:
        """As many as the run has samples, where there are as many."""
        config = self.config
        return references.held_out(config.data, config.sample.count, self.extractor, self._watch)

    def missing(self, drawing: Drawing) -> list[Row]:
        """The rows of a sample set that evaluation.jsonl lacks; the set is drawn when it must be.

        Those of one metric are appended together, so that its first label stands for all of them.
        """
        role = _role(drawing)
        of_set = [row for row in read_rows(self.file) if self._is_of(row, drawing)]
        newest = {row["metric"]: row for row in of_set}
        there = {metric for metric, row in newest.items() if self._has_this_reference(row)}
        lacking = [
            metric
            for metric in self.config.evaluate.metrics  # the first row is the distance
            if labels(metric, self.extractor.name, drawing.count)[0] not in there
        ]
        if not lacking:
            return []
        if outdated := newest.keys() - there:
            names = ", ".join(sorted(outdated))
            log.warning("the reference is another than that of %s: measured again", names)
        file = draw_set(self.config, self.session, drawing, self.device)
        set_precision("float32", "evaluate")  # drawing has left its own
        samples = features.of_samples(file, self.extractor, self._watch)
        rows = list(self._rows(lacking, samples, role))
        if role == "run":
            rows += self._limit(lacking, samples, file)
        sampling = drawing.record()
        if error := profile_error(self.session.run, drawing.ema_std, drawing.snapshot):
            sampling["ema_error"] = error
        rows = [{**row, "sampling": sampling} for row in rows]
        return rows + list(self._floor(lacking)) if role == "run" else rows

    def append(self, rows: list[Row]) -> None:
        """Add rows in one replacement of the file: none are there, or all, and on the disk."""
        if rows:
            keep_rows(self.file, [*read_rows(self.file), *rows])

    def _rows(self, wanted: list[str], images: Features, role: str) -> Iterator[Row]:
        """A row a label, in the order of ``wanted``."""
        count, real = len(images.pooled), self.reference
        for metric in wanted:
            self.session.check_stop()
            began = time.perf_counter()
            values = _measure(metric, images, real)
            record = real.pooled_record if metric in NEED_FEATURES else real.record
            for label, value in zip(
                labels(metric, self.extractor.name, count), values, strict=True
            ):
                yield self._row(label, role, count, value, record, began)

    def _limit(self, wanted: list[str], samples: Features, file: Path) -> Iterator[Row]:
        if "fd" not in wanted:
            return
        began = time.perf_counter()
        with np.load(file) as arrays:
            classes = arrays["arr_1"].astype(np.int64)
        limit = metrics.extrapolate(samples.pooled, classes, self.reference.statistics)
        if limit is None:
            return
        label = labels("fd", self.extractor.name, "inf")[0]
        record = self.reference.record
        yield self._row(label, "limit", len(classes), limit._asdict(), record, began)

    def _floor(self, wanted: list[str]) -> Iterator[Row]:
        """Real held-out images in the place of the run's samples."""
        if self.held_out is None:
            return
        images = self.held_out.features
        fit = [name for name in wanted if len(images.pooled) >= LEAST_SAMPLES[name]]
        for row in self._rows(fit, images, "floor"):
            yield {**row, "images": self.held_out.record}

    def _row(
        self, label: str, role: str, count: int, value: Row, reference: Record, began: float
    ) -> Row:
        return {
            "metric": label,
            **value,
            "role": role,
            "extractor": self.extractor.name,
            "weights": self.extractor.weights,
            "count": count,
            "reference": reference,
            "training_seed": self.config.seed,
            "seconds": time.perf_counter() - began,
        }

    def _is_of(self, row: Row, drawing: Drawing) -> bool:
        """Rows of older versions say less of the sampling, and count when that agrees."""
        record = json.loads(json.dumps(drawing.record()))
        told = {"snapshot": self.config.train.steps, **row.get("sampling", {})}
        return (
            "sampling" in row  # the floor is of no sample set
            and row["count"] == drawing.count
            and row["weights"] == self.extractor.weights
            and all(record.get(key) == told[key] for key in told if key != "ema_error")
        )

    def _has_this_reference(self, row: Row) -> bool:
        """Rows of older versions do not say which they were held against, and count."""
        told = row.get("reference", {}).get("hash")
        return told is None or told == self._reference_hash

    @cached_property
    def _reference_hash(self) -> str | int | None:
        """The images are looked at only where their content is not known without."""
        known = references.known_hash(self.config.data)
        return self.reference.record["hash"] if known is None else known

    def _watch(self, batches: Iterable[Batch], count: int) -> Iterator[Batch]:
        """The batches of images that are looked at; between two it may be asked to stop."""
        self.session.stage("evaluate", 0, count)
        done = 0
        for batch in batches:
            yield batch
            done += len(batch)
            self.session.check_stop()
            self.session.advance(done, 1)


def _role(drawing: Drawing) -> str:
    if drawing != Drawing.of_run(drawing.run, drawing.repeat):
        return "sweep"
    return "repeat" if drawing.repeat else "run"


def _measure(metric: str, images: Features, reference: Reference) -> list[dict[str, Any]]:
    """What each of the metric's labels gets: a value, and its spread over subsets if it has one."""
    match metric:
        case "fd":
            found = metrics.statistics(images.pooled)
            return [{"value": metrics.frechet_distance(found, reference.statistics)}]
        case "inception_score":
            return [metrics.inception_score(images.logits)._asdict()]
    assert reference.pooled is not None  # references.load was asked for them
    if metric == "kid":
        return [metrics.kernel_distance(images.pooled, reference.pooled)._asdict()]
    return [{"value": v} for v in metrics.precision_recall(images.pooled, reference.pooled)]


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
    config = run.config()
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
    sets = [d for sample in asked for step in at for d in _sets(config, sample, step)]
    with run.lease():
        said = run.state()
        if said is None or not run.is_done():
            raise ConfigError(
                f"{run.path} is not finished: run it first (python -m mpdit.run {run.path})"
            )
        try:
            with open_session(run) as session:
                device = prepare(config.train.precision)
                judged = config.model_copy(update={"evaluate": judge})
                _sweep(Evaluation(judged, session, device), sets)
        except Interrupted as signal_name:
            print(f"stopped by {signal_name}; the same command goes on", file=sys.stderr)
            return EXIT_INTERRUPTED
        finally:
            run.write_state(said)  # the run's last word stays its own
    return EXIT_DONE


def _sets(config: RunConfig, sample: SampleConfig, step: int) -> list[Drawing]:
    """The set drawn so; where that is the run's own, with its repeats."""
    own = Drawing.of_run(config)
    drawing = replace(
        own,
        ema_std=sample.ema_std,
        guidance=sample.guidance,
        count=sample.count,
        snapshot=step,
    )
    repeats = range(1, config.evaluate.repeats) if drawing == own else ()
    return [drawing, *(Drawing.of_run(config, repeat) for repeat in repeats)]


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
    except (ConfigError, OSError) as error:
        return say(error)


if __name__ == "__main__":
    sys.exit(main())
