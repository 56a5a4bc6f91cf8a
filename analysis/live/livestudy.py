"""The current state of a study. Each update reads only what has changed on disk."""

from __future__ import annotations

import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.judging import answers, conclusions, distances
from analysis.judging.answers import Answer
from analysis.judging.numerals import change
from analysis.live.losscurves import LossCurves
from analysis.loading.listing import Entry, Listing, read_listing
from analysis.loading.load import load
from analysis.study import NothingToShow, Study
from mpdit.disk.rundir import RunDir, RunState, share_done
from mpdit.disk.stamp import Stamp
from mpdit.errors import ConfigError

STATES = ("done", "running", "unfinished", "failed", "planned")
FRESH_S = 120
"""Seconds: a run on another host counts as running while its heartbeat is younger than this."""
PATIENCE = 20
"""Verdicts are recomputed at the earliest after this many times the seconds that they took."""
NEWEST = 8
"""The most sample images in the section of newest samples."""


@dataclass
class LiveRun:
    """The state of a run at the last update; ``image``: when its sample image was written (ns)."""

    entry: Entry
    folder: RunDir
    word: str = "planned"
    state: RunState = field(default_factory=RunState)
    stamps: tuple[Stamp | None, ...] = ()
    image: int = 0

    @property
    def share(self) -> float:
        """The fraction of the run that is done."""
        stage = "evaluate" if self.state.stage == "done" else self.state.stage
        stage = "done" if self.word == "done" else stage
        return share_done(stage, self.state.step, self.state.steps)

    def look(self) -> bool:
        """Read the run's state again, and return whether anything has changed."""
        stamps = tuple(
            _stamp(self.folder.path / name)
            for name in ("state.json", "evaluation.jsonl", "samples/grid.png")
        )
        before = self.word, self.stamps
        if stamps != self.stamps:
            self.stamps = stamps
            self.state = self.folder.state() or RunState(steps=self.entry.steps or 0)
            self.image = stamps[2].modified if stamps[2] else 0
        if self.word != "done" or stamps != before[1]:  # no file shows whether it is still alive
            self.word = self._word()
        return before != (self.word, self.stamps)

    def _word(self) -> str:
        if self.folder.is_done():
            return "done"
        if self.stamps[0] is None:
            return "running" if self.folder.is_leased() else "planned"
        if self.folder.is_leased():
            return "running"
        if self.state.error:
            return "failed"
        is_fresh = time.time() - self.state.heartbeat < FRESH_S
        elsewhere = self.state.host not in ("", socket.gethostname())
        return "running" if elsewhere and is_fresh and not self.state.stopped else "unfinished"

    def row(self, curves: LossCurves, value: float | None) -> dict[str, Any]:
        """Return the run's row on the page."""
        last = curves.last.get(self.entry.name, {})
        step, steps = self.state.step, self.state.steps or self.entry.steps or 0
        if self.state.stage == "train":
            step = max(step, int(last.get("step", 0)))
        if self.word == "done":  # its state has the last stage's count, not the training steps
            step = steps = self.entry.steps or steps
        is_running = self.word == "running"
        row = {
            "name": self.entry.name,
            "seed": self.entry.seed,
            "state": self.word,
            "stage": "" if self.word in ("done", "planned") else self.state.stage,
            "step": step,
            "steps": steps,
            "loss": _short(last.get("loss")),
            "rate": _short(last.get("images_per_s")) if is_running else None,
            "left": _short(self.state.eta) if is_running else None,
            "value": _short(value),
            "error": self.state.error if self.word == "failed" else None,
            "image": self.image // 1_000_000_000,
        }
        return {key: found for key, found in row.items() if found not in (None, "", 0)}


@dataclass
class Verdicts:
    """The verdicts on the evaluations so far."""

    metric: str = ""
    statements: list[str] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    """Run → its value."""
    of: dict[str, list[Answer]] = field(default_factory=dict)
    """Variant → its comparisons."""
    baselines: set[str] = field(default_factory=set)
    looks: dict[int, dict[str, str]] = field(default_factory=dict)
    """Declared look → variant → its verdict at that look, for looks so far."""


class LiveStudy:
    """A study's runs, by variant. `look` updates them, `document` returns the page's data."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = 0
        self._listing: Listing | None = None
        self._listed: Stamp | None = None
        self._runs: dict[str, LiveRun] = {}
        self._curves = LossCurves()
        self._changed: dict[str, int] = {}  # variant → the version that changed it
        self._verdicts = Verdicts()
        self._due, self._stale = 0.0, True
        self.look()

    @property
    def name(self) -> str:
        return self._known.study

    @property
    def _known(self) -> Listing:
        assert self._listing is not None
        return self._listing

    @property
    def is_over(self) -> bool:
        """Whether every run is done."""
        return all(run.word == "done" for run in self._runs.values())

    def picture(self, run: str) -> Path | None:
        """Return the path of a run's sample image, if it has one."""
        found = self._runs.get(run)
        return found.folder.samples / "grid.png" if found and found.image else None

    def look(self) -> None:
        """Update the study: read what has changed on disk.

        Raises:
            ConfigError: when the folder is not a study.
        """
        self.version += 1
        self._list()
        changed = self._curves.read(self.path, self._steps())
        ended = False
        for name, run in self._runs.items():
            before = run.word, run.stamps[1:2]
            if run.look():
                changed.add(name)
                ended |= before != (run.word, run.stamps[1:2]) and run.word in ("done", "failed")
        self._stale |= ended
        for name in changed:
            self._changed[self._runs[name].entry.variant] = self.version
        if self._stale and time.monotonic() >= self._due:
            self._judge()

    def _list(self) -> None:
        """Read study.json if it has changed."""
        stamp = _stamp(self.path / "study.json")
        if self._listing is not None and stamp == self._listed:
            return
        self._listing, self._listed = read_listing(self.path), stamp
        entries = [entry for entry in self._listing.runs if entry.in_grid and entry.needed]
        known = self._runs
        self._runs = {
            entry.name: known.get(entry.name) or LiveRun(entry, RunDir(self.path / entry.name))
            for entry in entries
        }
        self._changed = {entry.variant: self.version for entry in entries}
        self._stale = True

    def _steps(self) -> dict[str, int]:
        return {
            name: run.entry.steps or (run.state.steps if run.state.stage == "train" else 0)
            for name, run in self._runs.items()
        }

    def _judge(self) -> None:
        """Recompute all verdicts, because one run can change the verdicts of every variant."""
        began = time.monotonic()
        try:
            self._verdicts = judge(load(self.path, curves=False))
        except ConfigError:  # such as a study.json that is being replaced
            return
        self._stale = False
        self._due = time.monotonic() + PATIENCE * (time.monotonic() - began)
        self._changed = dict.fromkeys(self._changed, self.version)

    def document(self, since: int = 0) -> dict[str, Any]:
        """Return the page's data: the study, and variants that changed after version ``since``."""
        by_variant: dict[str, list[LiveRun]] = {}
        for run in self._runs.values():
            by_variant.setdefault(run.entry.variant, []).append(run)
        words = Counter(run.word for run in self._runs.values())
        return {
            "study": self.name,
            "version": self.version,
            "time": time.time(),
            "counts": {word: words[word] for word in STATES if words[word]},
            "share": sum(run.share for run in self._runs.values()) / max(1, len(self._runs)),
            "left": self._left(),
            "metric": self._verdicts.metric,
            "statements": self._verdicts.statements,
            "looks": list(self._known.decisions.get("looks") or ()),
            "looked": list(self._verdicts.looks),
            "variants": len(by_variant),
            "failed": list(self._failed()),
            "newest": self._newest(),
            "groups": [
                self._group(at, variant, runs)
                for at, (variant, runs) in enumerate(by_variant.items())
                if self._changed[variant] > since
            ],
        }

    def _group(self, at: int, variant: str, runs: list[LiveRun]) -> dict[str, Any]:
        verdicts = self._verdicts
        names = [run.entry.name for run in runs]
        values = [verdicts.values[name] for name in names if name in verdicts.values]
        words = Counter(run.word for run in runs)
        return {
            "at": at,
            "variant": variant,
            "counts": {word: words[word] for word in STATES if words[word]},
            "share": sum(run.share for run in runs) / len(runs),
            "steps": max(run.entry.steps or run.state.steps for run in runs),
            "curve": self._curves.mean(names),
            "mean": _short(statistics.fmean(values)) if values else None,
            "answers": [
                {
                    "against": answer.baseline,
                    "verdict": answer.verdict,
                    "change": change(answer.effect, answer.low, answer.high, answer.scale),
                    "seeds": answer.seeds,
                }
                for answer in verdicts.of.get(variant, ())
                if answer.seeds
            ],
            "baseline": variant in verdicts.baselines and variant not in verdicts.of,
            "looks": [found.get(variant, "") for found in verdicts.looks.values()],
            "runs": [run.row(self._curves, verdicts.values.get(run.entry.name)) for run in runs],
        }

    def _failed(self) -> Iterator[dict[str, Any]]:
        """Yield each error once with its number of runs, the most frequent first."""
        failed = [run for run in self._runs.values() if run.word == "failed"]
        errors = Counter(run.state.error for run in failed)
        for error, count in errors.most_common(5):
            first = next(run for run in failed if run.state.error == error)
            yield {"error": error, "runs": count, "first": first.entry.name}

    def _newest(self) -> list[dict[str, Any]]:
        """Return the newest sample images, one run per variant."""
        drawn = sorted((run for run in self._runs.values() if run.image), key=lambda run: run.image)
        latest = {run.entry.variant: run for run in drawn}
        newest = sorted(latest.values(), key=lambda run: run.image, reverse=True)[:NEWEST]
        return [
            {"name": run.entry.name, "variant": run.entry.variant, "image": run.image // 10**9}
            for run in newest
        ]

    def _left(self) -> float | None:
        """Estimate the seconds until all runs are done, with as many at once as now.

        None if no run is running, or no run's speed is known yet.
        """
        runs = self._runs.values()
        running = [run for run in runs if run.word == "running"]
        took = [run.state.heartbeat - run.state.started for run in runs if run.word == "done"]
        took = [seconds for seconds in took if seconds > 0]
        paces = [
            (time.time() - run.state.started) / run.share
            for run in running
            if run.share > 0.02 and run.state.started
        ]
        if not running or not (took or paces):
            return None
        whole = statistics.median(took or paces)
        work = sum(1 - run.share for run in runs if run.word in ("running", "planned"))
        longest = max(run.state.eta or 0 for run in running)
        return max(longest, whole * work / len(running))


def judge(study: Study) -> Verdicts:
    """Return the verdicts on the evaluations so far."""
    found = Verdicts(statements=conclusions.statements(study))
    with suppress(NothingToShow):
        found.metric = distances.title(study)
        without = [answer for answer in answers.answers(study) if not answer.seeds]
        empty = {conclusions.statement(answer, found.metric) for answer in without}
        said = [statement for statement in found.statements if statement not in empty]
        found.statements = said or ["No two variants have results to compare yet."]
        rows = distances.of_runs(study)
        found.values = dict(zip(rows["run"].astype(str), rows["value"].astype(float), strict=True))
        for answer in answers.answers(study):
            found.of.setdefault(answer.variant, []).append(answer)
            found.baselines.add(answer.baseline)
        found.looks = {
            look: {answer.variant: answer.verdict for answer in reversed(then)}
            for look, then in answers.at_looks(study).items()
        }
    return found


def _stamp(file: Path) -> Stamp | None:
    try:
        return Stamp.of(file.stat())
    except OSError:
        return None


def _short(value: float | None) -> float | None:
    """Round to four significant digits, to keep the page small."""
    return None if value is None or value != value else float(f"{value:.4g}")
