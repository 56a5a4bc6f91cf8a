"""The number by which a study is judged, and every run's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.judging import levels
from analysis.study import NothingToShow, Study

DISTANCES = ("FD", "FID", "KD", "KID")
"""Smaller is better; precision, recall and scores are not what a study is judged by."""


def own(study: Study) -> pd.DataFrame:
    """The evaluations of the runs as they were configured: no sweep, repeat, limit or floor."""
    return study.evaluations[study.evaluations["role"] == "run"]


def label(study: Study) -> str:
    """The distance by which the study is judged: the one that most runs have, of equals the first.

    Raises:
        NothingToShow: before the first evaluation by a distance.
    """
    rows = own(study).drop_duplicates(["run", "metric"])
    rows = rows[[name.split("@")[0].split("-")[0] in DISTANCES for name in rows["metric"]]]
    if rows.empty:
        raise NothingToShow("no run has been evaluated yet")
    counts = rows.groupby("metric", sort=False).size()
    return str(counts.idxmax())


def title(study: Study) -> str:
    """``label`` as a heading. Only a distance in Inception's features may be called FID."""
    name = label(study)
    rows = own(study)
    extractor = str(rows.loc[rows["metric"] == name, "extractor"].iloc[0])
    if name.startswith("FID") and not extractor.startswith("inception"):
        name = f"FD-{extractor}" + name.removeprefix("FID")
    return name


def of_runs(study: Study) -> pd.DataFrame:
    """One row a run that has a distance: ``run``, ``variant``, ``seed``, ``value``, ``point``.

    ``point`` says where on the tune axes the run is (``train.learning_rate 0.01``), empty where
    there are none.

    Raises:
        NothingToShow: before the first evaluation.
    """
    rows = own(study)
    rows = rows[rows["metric"] == label(study)].drop_duplicates("run", keep="last")
    rows = rows[np.isfinite(rows["value"].astype(float))]
    table = rows[["run", "variant", "seed", "value"]].astype({"value": float})
    words = dict(zip(study.runs["run"], points(study), strict=True))
    return table.assign(point=[words[run] for run in table["run"]]).reset_index(drop=True)


def points(study: Study) -> pd.Series[str]:
    """Where on the tune axes each row of ``runs`` is, in words."""
    rows = study.runs[list(study.tune)].to_dict("records")
    return pd.Series(list(map(_words, rows)), index=study.runs.index, dtype=str)


def repeats(study: Study) -> pd.DataFrame:
    """The same distance of a run's further sample sets, as large as its own and from the same
    reference: ``run``, ``value``.

    Raises:
        NothingToShow: before the first evaluation.
    """
    name = label(study)
    of_run = own(study)
    of_run = of_run[of_run["metric"] == name].drop_duplicates("run", keep="last")
    rows = study.evaluations[study.evaluations["role"] == "repeat"]
    rows = rows[rows["metric"].str.split("@").str[0] == name.split("@")[0]]
    same = of_run.columns.intersection(["run", "weights", "count", "reference.hash"])
    return rows.merge(of_run[same])


def _words(point: Mapping[Hashable, Any]) -> str:
    return ", ".join(
        f"{str(key).removeprefix('tune.')} {levels.text(value)}" for key, value in point.items()
    )
