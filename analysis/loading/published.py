"""Published summaries: a study's results in a few hundred kilobytes, for version control.

``results/published/<study>/`` has the frames of `analysis.study.Study` as Parquet files,
``published.json``, and each run's first images in ``<run>/samples/``. ``analysis.load`` reads a
summary like the study itself, so that tables, figures, report and notebooks need no training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.study import NothingToShow, Study
from mpdit.disk import links
from mpdit.disk.files import make_folder, write_atomic, written_aside
from mpdit.disk.jsontext import parse_json
from mpdit.errors import ConfigError

FRAMES = ("runs", "metrics", "magnitudes", "evaluations", "provenance", "missing")
PATHS = ["folder", "imported_from", "checkout"]
"""Columns with paths of one machine, which are left out."""
IMAGES = 20
"""Number of images kept of each sample set."""
SETS = ("samples.npz", "samples_ema*.npz")
"""The runs' own sets, and those of other EMA widths."""


def is_published(path: Path) -> bool:
    return (path / "published.json").is_file()


def write(study: Study, out: Path) -> Path:
    """Write the summary of ``study`` into the folder ``out``.

    Raises:
        ConfigError: when it cannot be written, or ``study`` is itself a summary.
    """
    if is_published(study.path):
        raise ConfigError(f"{study.path} is already a published summary")
    links.guard(out)
    try:
        make_folder(out)
        for name in FRAMES:
            frame = getattr(study, name).drop(columns=PATHS, errors="ignore")
            with written_aside(out / f"{name}.parquet", sync=False) as file:
                frame.to_parquet(file, index=False, compression="zstd")
        for run in study.runs["run"]:
            _keep_images(study, run, out / run / "samples")
        about = {
            "study": study.name,
            "description": study.description,
            "tune": list(study.tune),
            "decisions": dict(study.declared),
            "grid": study.grid,
            "set": list(study.sets),
        }
        write_atomic(out / "published.json", json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write the summary to {out}: {error.strerror}") from None
    return out


def _keep_images(study: Study, run: str, out: Path) -> None:
    for pattern in SETS:
        for file in study.folder(run).samples.glob(pattern):
            try:
                images, labels = study.samples(run, IMAGES, file.stem)
            except NothingToShow:
                continue
            make_folder(out)
            with written_aside(out / file.name, sync=False) as aside, aside.open("wb") as handle:
                np.savez_compressed(handle, arr_0=images, arr_1=labels)


def read(path: Path) -> Study:
    """Read a summary written by :func:`write`.

    Raises:
        ConfigError: when a file is missing or damaged.
    """
    try:
        about = parse_json((path / "published.json").read_bytes())
        frames = {name: _frame(pd.read_parquet(path / f"{name}.parquet")) for name in FRAMES}
        folders = [str(path / run) for run in frames["runs"]["run"]]
        frames["runs"] = frames["runs"].assign(folder=folders)
        if "diverged" not in frames["runs"]:  # summaries of version 0.1
            frames["runs"] = frames["runs"].assign(diverged=False)
        return Study(
            about["study"],
            path,
            **frames,
            tune=tuple(about["tune"]),
            declared=about.get("decisions", {}),
            grid=about.get("grid", ""),
            sets=tuple(about.get("set", ())),
            description=about.get("description", ""),
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is not a complete published summary: {error}") from None


def _frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert the frame's arrays to tuples."""
    for column in [name for name in frame if pd.api.types.is_object_dtype(frame[name])]:
        frame[column] = [_tuples(value) for value in frame[column]]
    return frame


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, np.ndarray) else value
