"""The metric by which a study is judged, and its value for every run.

Functions that need this metric raise `NothingToShow` before the first evaluation.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.judging import levels
from analysis.study import NothingToShow, Study, once
from mpdit.catalogue.measures import labelled
from mpdit.decisions import criteria
from mpdit.decisions.family import Rules


@once
def own(study: Study) -> pd.DataFrame:
    """Return the evaluations of the runs' own samples: no sweep, repeat, limit or floor.

    One row per run and metric: the last, if it was measured again.
    """
    rows = study.evaluations[study.evaluations["role"] == "run"]
    return rows.drop_duplicates(["run", "metric"], keep="last")


@once
def better(study: Study) -> Mapping[str, str]:
    """Return label → ``lower`` or ``higher``, for metrics whose better direction is known."""
    rows = own(study).reindex(columns=["metric", "better"])
    said = rows.dropna().astype(str)
    known = {str(name): row.better for name in rows["metric"].unique() if (row := labelled(name))}
    return known | dict(zip(said["metric"], said["better"], strict=True))


@once
def label(study: Study) -> str:
    """Return the metric by which the study is judged: the declared metric.

    Without a declaration, it is a distance, or else a metric whose better direction is known. Among
    several, it is the one that most runs have; among equals, the first.

    Raises:
        NothingToShow: before the first evaluation by such a metric. The message names the others.
    """
    rows = own(study)
    if rows.empty:
        raise NothingToShow("no run has been evaluated yet")
    names = rows["metric"]
    known = better(study)
    declared = study.declared.get("metric")
    counts = {str(name): int(n) for name, n in names.groupby(names, sort=False).size().items()}
    found = criteria.judge(counts, known, declared)
    if found is None:
        wanted = f"by {declared}" if declared else "by a metric whose better direction is known"
        raise NothingToShow(
            f"no run has been evaluated {wanted}; they have {', '.join(names.unique())}"
        )
    return found


@once
def rules(study: Study) -> Rules:
    """Return the rules by which the study's runs are compared.

    Raises:
        NothingToShow: before the first evaluation.
    """
    name = label(study)
    is_positive = not (judged(study)["value"].astype(float) <= 0).any()
    return criteria.rules(name, better(study).get(name), is_positive, study.declared)


def title(study: Study, name: str | None = None) -> str:
    """Return a metric's label as a heading; by default that of :func:`label`.

    Only a distance in Inception's features may be called FID.
    """
    name = name or label(study)
    rows = own(study)
    extractor = str(rows.loc[rows["metric"] == name, "extractor"].iloc[0])
    if name.startswith("FID") and not extractor.startswith("inception"):
        name = f"FD-{extractor}" + name.removeprefix("FID")
    return name


@once
def judged(study: Study) -> pd.DataFrame:
    """Return the evaluations by which the runs are judged, one row per run."""
    rows, name = own(study), label(study)
    found: pd.DataFrame = rows[rows["metric"] == name]
    return found


@once
def of_runs(study: Study) -> pd.DataFrame:
    """Return one row per run with a distance: ``run``, ``variant``, ``seed``, ``value``, ``point``.

    ``value`` is the mean over the run's sample sets, ``own`` the value of its own set. ``point`` is
    the run's place on the tune axes (``train.learning_rate 0.01``), empty without tune axes.

    Raises:
        NothingToShow: before the first evaluation, and where no value is finite.
    """
    table: pd.DataFrame = judged(study)[["run", "variant", "seed", "value"]]
    table = table.astype({"value": float})
    sets = repeats(study)[["run", "value"]].astype({"run": str, "value": float})
    sets = pd.concat([table[["run", "value"]].astype({"run": str}), sets])
    means = sets.groupby("run")["value"].mean()
    own_value = table["value"]
    table = table.assign(value=table["run"].astype(str).map(means).astype(float), own=own_value)
    table = table[np.isfinite(table["value"])]
    if table.empty:
        raise NothingToShow(f"no run has a finite {label(study)}")
    words = dict(zip(study.runs["run"], points(study), strict=True))
    return table.assign(point=[words[run] for run in table["run"]]).reset_index(drop=True)


def points(study: Study) -> pd.Series[str]:
    """Return the place of each row of ``runs`` on the tune axes, in words."""
    rows = study.runs[list(study.tune)].to_dict("records")
    return pd.Series(list(map(_words, rows)), index=study.runs.index, dtype=str)


def in_role(study: Study, role: str) -> pd.DataFrame:
    """Return the evaluations of the judged metric in another role, for any sample count."""
    rows, name = study.evaluations, label(study).split("@")[0]
    return rows[(rows["role"] == role) & (rows["metric"].str.split("@").str[0] == name)]


@once
def repeats(study: Study) -> pd.DataFrame:
    """Return the distances of repeats with the same size and reference as the run's own set."""
    of_run = judged(study)
    same = of_run.columns.intersection(["run", "weights", "count", "reference.hash"])
    return in_role(study, "repeat").merge(of_run[same])


def _words(point: Mapping[Hashable, Any]) -> str:
    return ", ".join(
        f"{str(key).removeprefix('tune.')} {levels.text(value)}" for key, value in point.items()
    )
