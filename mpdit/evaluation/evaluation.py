"""How far a run's samples are from real images, appended to its evaluation.jsonl.

A run is measured at its end; ``python -m mpdit.evaluate RUN`` measures a finished one again.
Existing rows are never overwritten, and the same command resumes. A row's ``role`` says what its
number is of:

=======  ==========================================================================================
run      the run's own samples
limit    the same at N → ∞, with standard error and the points of the fit
repeat   another sampling seed of the same model
floor    real held-out images, as many as there are samples and with labels drawn as theirs;
         fewer where there are too few (`references.held_out`)
sweep    another EMA width, guidance scale, training step or count
=======  ==========================================================================================
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel

from mpdit.catalogue import METRICS
from mpdit.config import RunConfig, SampleConfig
from mpdit.disk import npz
from mpdit.disk.files import keep_rows, read_rows
from mpdit.disk.identity import same_id
from mpdit.disk.npz import DamagedError
from mpdit.ema.posthoc import profile_error
from mpdit.evaluation import extractors, features, metrics, references
from mpdit.evaluation.extractors.extractor import Extractor, Features
from mpdit.evaluation.metrics import Reference
from mpdit.evaluation.realimages import Batch, Record
from mpdit.evaluation.references import HeldOut
from mpdit.runtime.session import Session, log
from mpdit.sampling.drawing import Drawing
from mpdit.sampling.sampler import draw_set

Row = dict[str, Any]
Section = TypeVar("Section", bound=BaseModel)


def evaluate_run(config: RunConfig, session: Session, device: torch.device) -> list[Row]:
    """Measure the run's own sample sets, and the floor; append what evaluation.jsonl lacks.

    All rows of a run are appended at once: with the first one the run is done.

    Returns:
        all rows; the first is the run's own distance.

    Raises:
        ConfigError: when the extractor or the reference is not available.
        Interrupted: when a signal asked to stop; features are kept.
    """
    evaluation = Evaluation(config, session, device)
    sets = sample_sets(config, config.sample, config.train.steps)
    evaluation.append([row for drawing in sets for row in evaluation.missing(drawing)])
    return read_rows(evaluation.file)


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
        """Held-out images like the run's samples in number and labels, if there are enough."""
        config = self.config
        drawing = Drawing.of_run(config)
        drawing = replace(drawing, images=self.session.run.images_by_class())
        return references.held_out(config.data, drawing, self.extractor, self._watch)

    def missing(self, drawing: Drawing) -> list[Row]:
        """The rows of a sample set that evaluation.jsonl lacks; the set is drawn if needed.

        Rows of one metric are appended together, so its first label shows whether they exist.
        """
        role = _role(drawing)
        of_set = [row for row in read_rows(self.file) if self._is_of(row, drawing)]
        newest = {row["metric"]: row for row in of_set}
        there = {metric for metric, row in newest.items() if self._has_this_reference(row)}
        lacking = [
            metric
            for metric in self.config.evaluate.metrics  # the first row is the distance
            if METRICS[metric].named(self.extractor.name, drawing.count)[0] not in there
        ]
        if not lacking:
            return []
        if outdated := newest.keys() - there:
            names = ", ".join(sorted(outdated))
            log.warning("reference images changed since %s was measured; measuring again", names)
        file = draw_set(self.config, self.session, drawing, self.device)
        try:
            samples = features.of_samples(file, self.extractor, self._watch)
        except DamagedError as damage:
            log.warning("%s; it is drawn again", damage)
            file = draw_set(self.config, self.session, drawing, self.device, again=True)
            samples = features.of_samples(file, self.extractor, self._watch)
        rows = list(self._rows(lacking, samples, role))
        if role == "run":
            rows += self._limit(lacking, samples, file)
        sampling = drawing.record()
        if error := profile_error(self.session.run, drawing.ema_std, drawing.snapshot):
            sampling["ema_error"] = error
        whose = self.session.identity.filled(npz.contents(file).mark).short()
        rows = [{**row, "sampling": sampling, "identity": whose} for row in rows]
        return rows + list(self._floor(lacking)) if role == "run" else rows

    def append(self, rows: list[Row]) -> None:
        """Append rows by replacing the file once: either all of them are on the disk, or none."""
        if rows:
            keep_rows(self.file, [*read_rows(self.file), *rows])

    def _rows(self, wanted: list[str], images: Features, role: str) -> Iterator[Row]:
        """Yield one row for each label, in the order of ``wanted``."""
        count, real = len(images.pooled), self.reference
        for metric in wanted:
            self.session.check_stop()
            began = time.perf_counter()
            kind = METRICS[metric]
            values = metrics.measure(metric, images, real)
            record = real.pooled_record if kind.needs_features else real.record
            for label, value in zip(kind.named(self.extractor.name, count), values, strict=True):
                row: Row = {**value, "better": kind.better}
                yield self._row(label, role, count, row, record, began)

    def _limit(self, wanted: list[str], samples: Features, file: Path) -> Iterator[Row]:
        if "fd" not in wanted:
            return
        began = time.perf_counter()
        classes = npz.labels(file)
        limit = metrics.extrapolate(samples.pooled, classes, self.reference.statistics)
        if limit is None:
            return
        label = METRICS["fd"].named(self.extractor.name, "inf")[0]
        record = self.reference.record
        yield self._row(label, "limit", len(classes), limit._asdict(), record, began)

    def _floor(self, wanted: list[str]) -> Iterator[Row]:
        """Measure real held-out images in place of the run's samples."""
        if self.held_out is None:
            return
        images = self.held_out.features
        fit = [name for name in wanted if len(images.pooled) >= METRICS[name].least]
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
        """Whether a row is of this set. Older rows record less; they match when that agrees."""
        record = json.loads(json.dumps(drawing.record()))
        told = {"snapshot": self.config.train.steps, **row.get("sampling", {})}
        own = self.session.identity.run
        return (
            "sampling" in row  # the floor has no sample set
            and same_id(row.get("identity", {}).get("run", own), own)
            and row["count"] == drawing.count
            and row["weights"] == self.extractor.weights
            and all(record.get(key) == told[key] for key in told if key != "ema_error")
        )

    def _has_this_reference(self, row: Row) -> bool:
        """Whether a row has this reference. Rows of older versions record none, and match any."""
        told = row.get("reference", {}).get("hash")
        return told is None or told == self._reference_hash

    @cached_property
    def _reference_hash(self) -> str | int | None:
        """The reference's hash; images are read only if it is not known without."""
        known = references.known_hash(self.config.data)
        return self.reference.record["hash"] if known is None else known

    def _watch(self, batches: Iterable[Batch], count: int) -> Iterator[Batch]:
        """Yield batches of images that are read, with progress; stop between two if asked to."""
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


def sample_sets(config: RunConfig, sample: SampleConfig, step: int) -> list[Drawing]:
    """The sample set with these options; if it is the run's own set, with its repeats."""
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
