"""Run directories → tidy frames. Reads what is on disk now, and says what is not there.

``load(study)`` gives a :class:`Study` of DataFrames, one row an observation. In every frame ``run``
is the run's folder name, ``variant`` a categorical in grid order, ``seed`` an integer.

``runs``, one row a run of the grid
    ``run``, ``id``, ``variant``, ``seed``; ``state`` (planned, running, unfinished, failed, done);
    ``stage``; ``step`` of ``steps``; ``trained`` (training is over); ``parameters``, ``flops``;
    ``train_seconds`` (cumulative); ``axis.<key>`` and ``tune.<key>`` as the grid spells them; the
    parameter counts by part, ``parameters.<part>``; ``model`` (``DiT-S/2``), ``flags`` (a tuple);
    and every field of the resolved config under its dotted key, ``model.conditioning``.
``metrics``, one row a logged step
    ``step``, ``loss``, ``mse``, ``vlb`` (bits), ``grad_norm``, ``learning_rate``,
    ``images_per_s``, ``memory_mb``, ``seconds`` (cumulative training time).
``magnitudes``, one row a probed block
    ``step``, ``site`` (residual, attention, mlp, modulated, conditioning), ``block`` (from 1),
    ``magnitude`` (mean over positions of the RMS over channels; no unit).
``evaluations``, one row a number
    ``metric`` (``FD-digits@1000``), ``value``, ``role`` (run, limit, repeat, floor, sweep: what
    docs/evaluation.md says of each), ``extractor``, ``weights``, ``count`` (samples),
    ``reference.*``, ``sampling.*`` and the rest as evaluation.jsonl has them, ``seconds``.
``provenance``, one row a start of a run
    ``time``, ``code``, ``diff_sha``, ``python``, ``host``, ``device``, ``threads``, ``job``,
    ``packages.<name>``.
``missing``, one row a lack
    ``run`` and ``what``, in words.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from mpdit.config import ConfigError, RunConfig, nearest
from mpdit.study.rundir import RunDir, RunState, read_rows

METRICS = (
    "step loss mse vlb grad_norm learning_rate images_per_s memory_mb seconds".split()  # noqa: SIM905
)
MAGNITUDES = ["step", "site", "block", "magnitude"]
EVALUATIONS = ["metric", "value", "role", "extractor", "weights", "count", "seconds"]
STARTS = ["time", "code", "diff_sha", "python", "host", "device", "threads", "job"]
RUNS = [
    *("run", "id", "variant", "seed", "state", "stage", "step", "steps", "trained"),
    *("parameters", "flops", "train_seconds", "model", "flags"),
]

MAYBE_MISSING = ("steps", "parameters", "flops", "train_seconds")
"""Columns of ``runs`` that are floats, NaN where unknown."""


class NothingToShow(ValueError):
    """The study has no data yet for what was asked."""


@dataclass(frozen=True)
class Study:
    """A study's results, as the module says. The frames are shared: copy before changing one."""

    name: str
    path: Path
    runs: pd.DataFrame
    metrics: pd.DataFrame
    magnitudes: pd.DataFrame
    evaluations: pd.DataFrame
    provenance: pd.DataFrame
    missing: pd.DataFrame
    tune: tuple[str, ...] = ()
    """The columns of ``runs`` over which each variant is to be compared at its own best."""

    @property
    def variants(self) -> list[str]:
        """In grid order."""
        return [str(name) for name in self.runs["variant"].cat.categories]

    @cached_property
    def designs(self) -> pd.DataFrame:
        """One row a variant with at least one readable config: that run's row of ``runs``."""
        known = self.runs[self.runs["model"].notna()]
        return known.drop_duplicates("variant").set_index("variant").sort_index()

    def samples(self, run: str, count: int, name: str = "samples") -> tuple[np.ndarray, np.ndarray]:
        """The first ``count`` images (uint8, count × H × W × C) and labels (count) of a run.

        ``name`` is another sample set's than the run's own, ``samples_ema0.1``.

        Raises:
            NothingToShow: when there are none, or the file is not whole.
        """
        return _first_samples(RunDir(self.path / run).samples / f"{name}.npz", count)


def load(study: str | Path) -> Study:
    """Everything that ``results/<study>/`` holds now, finished or not.

    Raises:
        ConfigError: when ``study`` is no folder of runs.
    """
    from analysis import published

    path = Path(study)
    if published.is_published(path):
        return published.read(path)
    name, entries = _entries(path)
    reader = _Reader(path)
    for entry in entries:
        reader.read(entry)
    variants = list(dict.fromkeys(entry.variant for entry in entries if entry.in_grid))
    tune = dict.fromkeys(f"tune.{key}" for entry in entries for key in entry.tune)
    runs = _categorical(_frame(reader.runs, RUNS), variants)
    runs = runs.astype(dict.fromkeys(MAYBE_MISSING, float))
    labels = runs.set_index("run")[["variant", "seed"]]

    def tidy(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
        if not frames:
            frames = [pd.DataFrame(columns=["run", *columns])]
        frame = pd.concat(frames, ignore_index=True)
        frame.insert(1, "variant", frame["run"].map(labels["variant"].astype(str)))
        frame.insert(2, "seed", frame["run"].map(labels["seed"]))
        return _categorical(frame, variants)

    return Study(
        name=name,
        path=path,
        runs=runs,
        metrics=tidy(reader.metrics, METRICS),
        magnitudes=tidy(reader.magnitudes, MAGNITUDES),
        evaluations=tidy(reader.evaluations, EVALUATIONS),
        provenance=tidy(reader.starts, STARTS),
        missing=_frame(reader.missing, ["run", "what"]),
        tune=tuple(tune),
    )


class _Entry(BaseModel):
    """One run as study.json lists it."""

    model_config = ConfigDict(extra="ignore")
    name: str
    id: str = ""
    variant: str
    seed: int = 0  # a run that has left the grid may have lost its entry
    axes: dict[str, Any] = {}
    tune: dict[str, Any] = {}
    parameters: int | None = None
    steps: int | None = None
    in_grid: bool = True


class _Listing(BaseModel):
    model_config = ConfigDict(extra="ignore")
    study: str
    runs: list[_Entry]


def _entries(path: Path) -> tuple[str, list[_Entry]]:
    """The study's name and its runs in grid order."""
    if not path.is_dir():
        raise ConfigError(f"there is no folder {path}.{_nearest_folder(path)}")
    if (path / "config.yaml").is_file():
        raise ConfigError(f"{path} is a run, not a study: give its folder, {path.parent}")
    file = path / "study.json"
    try:
        listing = _Listing.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        listing = _Listing(study=path.resolve().name, runs=_folders(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file} is damaged: {key or 'the file'}: {first['msg']}") from None
    for entry in listing.runs:
        if entry.name in ("", ".", "..") or "/" in entry.name:
            raise ConfigError(f"{file}: the run {entry.name!r} would lie outside the study")
    if not any(entry.in_grid for entry in listing.runs):
        raise ConfigError(
            f"{path} holds no runs: neither a study.json that lists any, "
            f"nor a folder with a config.yaml{_nearest_below(path)}"
        )
    return listing.study, listing.runs


def _folders(path: Path) -> list[_Entry]:
    """Without study.json: variant and seed from the folders' names, ``<variant>_s<seed>-<id>``."""
    entries = []
    for config in path.glob("*/config.yaml"):
        name = config.parent.name
        match = re.fullmatch(r"(.+)_s(\d+)-([0-9a-f]{8})", name)
        variant, seed, run_id = match.groups() if match else (name, 0, "")
        entries.append(_Entry(name=name, id=run_id, variant=variant, seed=int(seed)))
    entries.sort(key=lambda entry: (entry.variant, entry.seed, entry.name))
    labels = [(entry.variant, entry.seed) for entry in entries]
    # Points of a tune axis share a label, and nothing here says which is which.
    return [
        entry.model_copy(update={"variant": entry.name}) if labels.count(label) > 1 else entry
        for entry, label in zip(entries, labels, strict=True)
    ]


def _nearest_folder(path: Path) -> str:
    """A hint: the sibling, or the study under results/, whose name comes closest."""
    for parent in (path.parent, Path("results")):
        if parent.is_dir():
            known = [str(p) for p in sorted(parent.iterdir()) if p.is_dir()]
            if hint := nearest(str(parent / path.name), known):
                return hint
    return ""


def _nearest_below(path: Path) -> str:
    studies = sorted(str(file.parent) for file in path.glob("*/study.json"))
    return f". Did you mean {', '.join(studies[:3])}?" if studies else ""


@dataclass
class _Reader:
    """Collects the rows of one run after the other, and what could not be read."""

    path: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[pd.DataFrame] = field(default_factory=list)
    magnitudes: list[pd.DataFrame] = field(default_factory=list)
    evaluations: list[pd.DataFrame] = field(default_factory=list)
    starts: list[pd.DataFrame] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)

    def read(self, entry: _Entry) -> None:
        run = RunDir(self.path / entry.name)
        if not entry.in_grid:
            self._lacks(run, "is no longer in the grid: left out")
            return
        config = self._config(run)
        metrics = self._rows(run, "metrics.jsonl")
        magnitudes = self._rows(run, "magnitudes.jsonl")
        evaluations = self._rows(run, "evaluation.jsonl")
        model = self._json(run, "model.json")
        state, words = self._state(run, done=bool(evaluations))
        step = metrics[-1]["step"] if metrics else (state.step if state else 0)
        steps = config.train.steps if config else entry.steps
        self.runs.append(
            {
                "run": run.name,
                "id": entry.id or (config.id if config else ""),
                "variant": entry.variant,
                "seed": entry.seed,
                "state": words,
                "stage": state.stage if state else None,
                "step": step,
                "steps": steps,
                "trained": bool(evaluations) or (state is not None and state.stage != "train"),
                "parameters": model.get("parameters", entry.parameters),
                "flops": model.get("flops"),
                "train_seconds": metrics[-1].get("seconds") if metrics else None,
                "model": config.model.name if config else None,
                "flags": config.model.flags if config else None,
                **{f"axis.{key}": value for key, value in entry.axes.items()},
                **{f"tune.{key}": value for key, value in entry.tune.items()},
                **{f"parameters.{part}": n for part, n in model.get("parts", {}).items()},
                **(_flat(config.resolved()) if config else {}),
            }
        )
        self._keep(self.metrics, run, metrics)
        self._keep(self.magnitudes, run, [row for probe in magnitudes for row in _blocks(probe)])
        self._keep(self.evaluations, run, [{"role": "run", **_flat(row)} for row in evaluations])
        starts = self._json(run, "provenance.json").get("starts", [])
        self._keep(self.starts, run, [_flat(row) for row in starts])
        if evaluations and not (run.samples / "samples.npz").is_file():
            self._lacks(run, "its samples are gone: it is not in the sample grid")

    def _keep(self, frames: list[pd.DataFrame], run: RunDir, rows: list[dict[str, Any]]) -> None:
        if rows:
            frame = pd.DataFrame(rows)
            frame.insert(0, "run", run.name)
            frames.append(frame)

    def _lacks(self, run: RunDir, what: str) -> None:
        self.missing.append({"run": run.name, "what": what})

    def _state(self, run: RunDir, done: bool) -> tuple[RunState | None, str]:
        """What the run says of itself, and the one word for it; what is unfinished is missing."""
        state = run.state()
        if done:
            return state, "done"
        if state is None:
            self._lacks(run, "not started")
            return state, "planned"
        where = f"{state.stage}, step {state.step:,} of {state.steps:,}"
        if state.error:
            self._lacks(run, f"failed ({where}): {state.error}")
            return state, "failed"
        if run.is_leased():
            self._lacks(run, f"still running ({where})")
            return state, "running"
        self._lacks(run, f"unfinished ({where})")
        return state, "unfinished"

    def _config(self, run: RunDir) -> RunConfig | None:
        if not (run.path / "config.yaml").is_file():
            return None
        try:
            return run.config()
        except ConfigError as error:
            reason = str(error).removeprefix(f"{run.path / 'config.yaml'}: ")
            self._lacks(run, f"config.yaml cannot be read: {reason}")
            return None

    def _rows(self, run: RunDir, name: str) -> list[dict[str, Any]]:
        try:
            return read_rows(run.path / name)
        except ValueError:
            self._lacks(run, f"{name} is damaged: left out")
            return []

    def _json(self, run: RunDir, name: str) -> dict[str, Any]:
        try:
            data = json.loads((run.path / name).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            self._lacks(run, f"{name} is damaged: left out")
            return {}
        return data if isinstance(data, dict) else {}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _blocks(probe: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"step": probe["step"], "site": probe["site"], "block": block, "magnitude": magnitude}
        for block, magnitude in enumerate(probe["blocks"], start=1)
    ]


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    extra = [name for name in frame.columns if name not in columns]
    return frame.reindex(columns=columns + extra)


def _categorical(frame: pd.DataFrame, variants: list[str]) -> pd.DataFrame:
    frame["variant"] = pd.Categorical(frame["variant"], categories=variants, ordered=True)
    return frame


def _first_samples(file: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads no more of arr_0 than it needs: 10,000 images of 128² are half a gigabyte."""
    try:
        with zipfile.ZipFile(file) as archive:
            with archive.open("arr_0.npy") as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                count = min(count, shape[0])
                size = int(np.prod(shape[1:])) * dtype.itemsize
                images = np.frombuffer(stream.read(count * size), dtype=dtype)
            with archive.open("arr_1.npy") as stream:
                labels = np.lib.format.read_array(stream, allow_pickle=False)
        return images.reshape(count, *shape[1:]), labels[:count]
    except FileNotFoundError:
        raise NothingToShow(f"{file} is not there") from None
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise NothingToShow(f"{file} is damaged: {error}") from None
