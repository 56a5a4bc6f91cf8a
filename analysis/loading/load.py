"""Load run directories into a :class:`~analysis.study.Study`, with a list of missing data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from analysis.loading import cache, parse, published
from analysis.loading.join import join
from analysis.loading.listing import Entry, Listing, read_listing, study_folder
from analysis.study import Study
from mpdit.config import RunConfig, read_run
from mpdit.disk.files import said_of, scan_rows
from mpdit.disk.jsontext import parse_json
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import ConfigError

EVALUATIONS = ["metric", "value", "role", "extractor", "weights", "count", "seconds"]
STARTS = [
    *("time", "code", "diff_sha", "code_hash", "code_snapshot"),
    *("python", "host", "device", "threads", "job"),
]
RUNS = [
    *("run", "id", "variant", "seed", "study", "named", "state", "stage", "step", "steps"),
    *("diverged", "trained", "parameters", "flops", "train_seconds", "model", "flags", "folder"),
    "design",
]
UNREADABLE = "cannot be read (it is another user's)"
MAYBE_MISSING = ("steps", "parameters", "flops", "train_seconds")
"""Columns of ``runs`` that are floats, NaN where unknown."""


def load(study: str | Path | Sequence[str | Path], *, curves: bool = True) -> Study:
    """Load all results of a study, finished or not.

    Args:
        study: the study's folder, such as ``results/quickstart``, its name under ``results/``, or
            the folder of its published summary. Several are joined (:func:`join`).
        curves: False leaves ``metrics`` and ``magnitudes`` empty; verdicts do not need them.

    Raises:
        ConfigError: when ``study`` is not a folder of runs.
    """
    if not isinstance(study, str | Path):
        return join([load(one, curves=curves) for one in study])
    path = study_folder(study)
    if published.is_published(path):
        return published.read(path)
    listing = read_listing(path)
    known = [entry for entry in listing.runs if entry.in_grid and entry.needed]
    reader = _Reader(listing, path, known)
    for entry in listing.runs:
        if not entry.in_grid:
            reader.lacks(entry.name, "is no longer in the grid: left out")
    return reader.read(curves)


def load_run(run: RunDir) -> Study:
    """Load a study with only this run, whether study.json lists it or not.

    Raises:
        ConfigError: when the study's study.json is damaged.
    """
    listing = read_listing(run.path.parent)
    entry = next((entry for entry in listing.runs if entry.name == run.name), None)
    entry = entry or Entry(name=run.name, variant=run.name)
    return _Reader(listing, run.path.parent, [entry]).read()


@with_config(ConfigDict(extra="allow"))
class _Score(TypedDict):
    """The columns of evaluation.jsonl in any version; a row may have others."""

    metric: str
    value: float
    role: NotRequired[str]
    extractor: NotRequired[str]
    weights: NotRequired[str]
    count: NotRequired[int]
    sampling: NotRequired[dict[str, Any]]
    reference: NotRequired[dict[str, Any]]


@with_config(ConfigDict(extra="allow"))
class _Start(TypedDict, total=False):
    missing_rows: list[str]


class _Starts(TypedDict, total=False):
    starts: list[_Start]


class _Model(TypedDict, total=False):
    parameters: int
    parts: dict[str, int]
    flops: int


_SCORE, _STARTS, _MODEL = TypeAdapter(_Score), TypeAdapter(_Starts), TypeAdapter(_Model)


@dataclass
class _Reader:
    """Reads the runs of one study, and collects the problems."""

    listing: Listing
    path: Path
    entries: list[Entry]
    missing: list[dict[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.listing.study

    def lacks(self, run: str, what: str) -> None:
        self.missing.append({"run": run, "study": self.name, "what": what})

    def read(self, curves: bool = True) -> Study:
        """Read all runs except those whose config.yaml only another user may read."""
        configs = self._configs()
        read = self._rows if curves else self._no_rows
        metrics, magnitudes = read(parse.METRICS), read(parse.MAGNITUDES)
        ends = np.cumsum(metrics.counts)
        last_row = {
            i: {key: metrics.table[key][end - 1].as_py() for key in ("step", "seconds")}
            for i, end in enumerate(ends)
            if metrics.counts[i]
        }
        runs: list[dict[str, Any]] = []
        evaluations: list[dict[str, Any]] = []
        starts: list[dict[str, Any]] = []
        for i, entry in enumerate(self.entries):
            run = RunDir(self.path / entry.name)
            scores = self._evaluations(run)
            runs.append(self._run(run, entry, configs[i], last_row.get(i, {}), done=bool(scores)))
            evaluations += [{"role": "run", **_flat(row), "at": i} for row in scores]
            begun = self._json(run, "provenance.json", _STARTS).get("starts", [])
            missing = [line for start in begun for line in start.pop("missing_rows", ())]
            for line in dict.fromkeys(missing):
                self.lacks(run.name, line)
            starts += [{**_flat(row), "at": i} for row in begun]
        variants = list(dict.fromkeys(entry.variant for entry in self.entries))
        frame = _frame(runs, RUNS).astype(dict.fromkeys(MAYBE_MISSING, float))
        frame["variant"] = pd.Categorical(frame["variant"], categories=variants, ordered=True)
        tune = dict.fromkeys(f"tune.{key}" for entry in self.entries for key in entry.tune)
        return Study(
            name=self.name,
            path=self.path,
            runs=frame,
            metrics=self._tidy(_columns(metrics.table), _repeat(metrics.counts), frame),
            magnitudes=self._magnitudes(magnitudes, frame),
            evaluations=self._listed(evaluations, EVALUATIONS, frame),
            provenance=self._listed(starts, STARTS, frame),
            missing=_frame(self.missing, ["run", "study", "what"]),
            tune=tuple(tune),
            declared=self.listing.decisions,
            grid=self.listing.grid,
            sets=tuple(self.listing.sets),
            description=self.listing.description,
        )

    def _rows(self, kind: cache.Kind) -> cache.Rows:
        rows = cache.read(self.path, [entry.name for entry in self.entries], kind)
        for what, found in (("is damaged", rows.damaged), (UNREADABLE, rows.unreadable)):
            for index in found:
                self.lacks(self.entries[index].name, f"{kind.name} {what}: left out")
        return rows

    def _no_rows(self, kind: cache.Kind) -> cache.Rows:
        return cache.Rows(kind.schema.empty_table(), [0] * len(self.entries), [], [])

    def _configs(self) -> list[RunConfig | None]:
        """Return each run's config, None without one. Remove unreadable runs from the entries."""
        found = cache.read(self.path, [entry.name for entry in self.entries], parse.CONFIGS)
        for index in found.unreadable:
            self.lacks(self.entries[index].name, f"config.yaml {UNREADABLE}: left out")
        kept = [i for i in range(len(self.entries)) if i not in set(found.unreadable)]
        self.entries = [self.entries[i] for i in kept]
        if not kept:
            raise ConfigError(f"{self.path}: no run can be read, all are another user's")
        counts = [found.counts[i] for i in kept]
        trees = iter(found.table["tree"].to_pylist())
        return [
            self._config(RunDir(self.path / entry.name), next(trees) if count else None)
            for entry, count in zip(self.entries, counts, strict=True)
        ]

    def _config(self, run: RunDir, tree: str | None) -> RunConfig | None:
        file = run.path / "config.yaml"
        if tree is None and not file.is_file():
            return None
        try:
            return run.config() if tree is None else read_run(parse_json(tree))
        except ConfigError as error:
            reason = str(error).removeprefix(f"{file}: ")
            self.lacks(run.name, f"config.yaml cannot be read: {reason}")
            return None

    def _run(
        self,
        run: RunDir,
        entry: Entry,
        config: RunConfig | None,
        last_row: dict[str, Any],
        done: bool,
    ) -> dict[str, Any]:
        """Return a run's row of ``runs``."""
        model = self._json(run, "model.json", _MODEL)
        state, word = self._state(run, done)
        if done and not os.access(run.samples / "samples.npz", os.R_OK):
            self.lacks(run.name, "its samples are missing: left out of the figure of samples")
        return {
            "run": run.name,
            "id": entry.id or (config.id if config else ""),
            "variant": entry.variant,
            "seed": entry.seed,
            "study": self.name,
            "named": entry.named,
            "state": word,
            "stage": state.stage if state else None,
            "step": last_row.get("step", state.step if state else 0),
            "steps": config.train.steps if config else entry.steps,
            "diverged": not done and state is not None and state.diverged,
            "trained": done or (state is not None and state.stage != "train"),
            "parameters": model.get("parameters", entry.parameters),
            "flops": model.get("flops"),
            "train_seconds": last_row.get("seconds"),
            "model": config.model.name if config else None,
            "flags": config.model.flags if config else None,
            "folder": str(run.path),
            "design": _design(config, entry.tune) if config else None,
            **{f"axis.{key}": _hashable(value) for key, value in entry.axes.items()},
            **{f"tune.{key}": _hashable(value) for key, value in entry.tune.items()},
            **{f"parameters.{part}": n for part, n in model.get("parts", {}).items()},
            **(_flat(config.resolved()) if config else {}),
        }

    def _state(self, run: RunDir, done: bool) -> tuple[RunState | None, str]:
        """Return the run's state and one word for it. Record an unfinished run as missing."""
        state = run.state()
        if done:
            return state, "done"
        if state is None and (run.path / "state.json").exists():
            why = "is damaged" if os.access(run.path / "state.json", os.R_OK) else UNREADABLE
            self.lacks(run.name, f"unfinished (its state.json {why})")
            return state, "unfinished"
        if state is None:
            self.lacks(run.name, "not started")
            return state, "planned"
        where = f"{state.stage}, step {state.step:,} of {state.steps:,}"
        if state.error:
            self.lacks(run.name, f"failed ({where}): {state.error}")
            return state, "failed"
        if run.is_leased():
            self.lacks(run.name, f"still running ({where})")
            return state, "running"
        self.lacks(run.name, f"unfinished ({where})")
        return state, "unfinished"

    def _evaluations(self, run: RunDir) -> list[dict[str, Any]]:
        """Return the rows, each number once: the last, if it was measured again."""
        try:
            rows, damaged = scan_rows(run.path / "evaluation.jsonl", _SCORE)
        except PermissionError:
            self.lacks(run.name, f"evaluation.jsonl {UNREADABLE}: left out")
            return []
        if damaged:
            self.lacks(run.name, f"evaluation.jsonl: {said_of(damaged)} damaged: left out")
        same = ("metric", "role", "weights", "sampling")
        return list({json.dumps([row.get(key) for key in same]): row for row in rows}.values())

    def _json(self, run: RunDir, name: str, kind: TypeAdapter[Any]) -> dict[str, Any]:
        try:
            found: dict[str, Any] = kind.validate_json((run.path / name).read_bytes())
        except FileNotFoundError:
            return {}
        except PermissionError:
            self.lacks(run.name, f"{name} {UNREADABLE}: left out")
            return {}
        except ValidationError:
            self.lacks(run.name, f"{name} is damaged: left out")
            return {}
        return found

    def _magnitudes(self, rows: cache.Rows, runs: pd.DataFrame) -> pd.DataFrame:
        """Return one row per block, from one row per probe and site."""
        blocks = rows.table["blocks"].combine_chunks()
        sizes = pc.list_value_length(blocks).to_numpy(zero_copy_only=False)
        starts = np.cumsum(sizes) - sizes
        sites = rows.table["site"].combine_chunks().dictionary_encode()
        codes = sites.indices.to_numpy(zero_copy_only=False).repeat(sizes)
        columns = {
            "step": rows.table["step"].to_numpy().repeat(sizes),
            "site": pd.Categorical.from_codes(codes, categories=sites.dictionary.to_pylist()),
            "block": np.arange(sizes.sum()) - starts.repeat(sizes) + 1,
            "magnitude": blocks.flatten().to_numpy(zero_copy_only=False),
        }
        return self._tidy(columns, _repeat(rows.counts).repeat(sizes), runs)

    def _listed(
        self, rows: list[dict[str, Any]], columns: list[str], runs: pd.DataFrame
    ) -> pd.DataFrame:
        frame = _frame(rows, ["at", *columns])
        at = frame.pop("at").to_numpy(dtype=int)
        frame = frame.drop(columns=["run", "variant", "seed", "study"], errors="ignore")
        return self._tidy({name: frame[name].array for name in frame.columns}, at, runs)

    def _tidy(self, columns: Mapping[str, Any], at: np.ndarray, runs: pd.DataFrame) -> pd.DataFrame:
        """Put the columns that name each row's run before the others; ``at``: index of the run."""
        labels = {
            "run": pd.Categorical.from_codes(at, categories=pd.Index(runs["run"])),
            "variant": runs["variant"].array[at],
            "seed": runs["seed"].to_numpy()[at],
            "study": pd.Categorical.from_codes(np.zeros_like(at), categories=pd.Index([self.name])),
        }
        return pd.DataFrame({**labels, **columns}, copy=False)


def _hashable(value: Any) -> Any:
    """Convert an axis' value to one that pandas can group by."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _design(config: RunConfig, tuned: Iterable[str]) -> str:
    """Return a hash that is equal for all seeds and tuned values of a variant, in every study."""
    science = _flat(config.science())
    for key in ("seed", *tuned):
        science.pop(key, None)
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:8]


def _columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in table.column_names}


def _repeat(counts: list[int]) -> np.ndarray:
    """Return the index of the run for each row."""
    return np.arange(len(counts)).repeat(counts)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    extra = [name for name in frame.columns if name not in columns]
    return frame.reindex(columns=columns + extra)
