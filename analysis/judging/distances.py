"""The number by which a study is judged, and every run's.

All functions on it raise `NothingToShow` before the first evaluation.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.judging import levels
from analysis.study import NothingToShow, Study, once
from mpdit.catalogue.measures import labelled
from mpdit.decisions.family import Rules


@once
def own(study: Study) -> pd.DataFrame:
    """The evaluations of the runs as they were configured: no sweep, repeat, limit or floor.

    One row a run and metric, the last where it was measured again.
    """
    rows = study.evaluations[study.evaluations["role"] == "run"]
    return rows.drop_duplicates(["run", "metric"], keep="last")


def kind(label: str) -> str | None:
    """``Fréchet`` or ``kernel``; None for a metric that is not a known distance."""
    row = labelled(label)
    return row.distance if row else None


@once
def better(study: Study) -> Mapping[str, str]:
    """Label → ``lower`` or ``higher``, for the metrics of the runs where this is known."""
    rows = own(study).reindex(columns=["metric", "better"])
    said = rows.dropna().astype(str)
    known = {str(name): row.better for name in rows["metric"].unique() if (row := labelled(name))}
    return known | dict(zip(said["metric"], said["better"], strict=True))


@once
def label(study: Study) -> str:
    """The metric by which the study is judged: the declared one.

    Without a declaration a distance, else a metric whose better direction is known. Of several the
    one that most runs have, of equals the first.

    Raises:
        NothingToShow: before the first evaluation by such a metric. The message names the others.
    """
    rows = own(study)
    if rows.empty:
        raise NothingToShow("no run has been evaluated yet")
    names = rows["metric"]
    known = better(study)
    if declared := study.declared.get("metric"):
        judges = names[names.map(lambda name: _is_of(name, declared))]
    else:
        judges = names[names.map(kind).notna()]
        for direction in ("lower", "higher"):
            judges = names[names.map(known) == direction] if judges.empty else judges
    if judges.empty:
        wanted = f"by {declared}" if declared else "by a metric whose better direction is known"
        raise NothingToShow(
            f"no run has been evaluated {wanted}; they have {', '.join(names.unique())}"
        )
    return str(judges.groupby(judges, sort=False).size().idxmax())


def _is_of(label: str, declared: str) -> bool:
    """Whether a number is of the declared metric: FD and FID are one."""
    mine, theirs = labelled(label), labelled(declared)
    if mine is None or theirs is None or mine is not theirs:
        return False
    names = (mine.labels, mine.inception or mine.labels)
    first = label.split("@")[0].split("-")[0]
    return any({first, declared} <= {of[i] for of in names} for i in range(len(mine.labels)))


@once
def rules(study: Study) -> Rules:
    """How the study's runs are compared, by its metric.

    A quantity that is not always positive has no ratio. A margin of another scale than the
    metric's is none.

    Raises:
        NothingToShow: before the first evaluation.
    """
    name = label(study)
    row = labelled(name)
    scale = row.scale if row else "difference"
    if (judged(study)["value"].astype(float) <= 0).any():
        scale = "difference"
    declared = {"margin": 0.05, "scale": "ratio", **study.declared}
    return Rules(
        scale=scale,
        lower_is_better=better(study).get(name) != "higher",
        margin=float(declared["margin"]) if declared["scale"] == scale else 0.0,
        looks=tuple(declared.get("looks") or ()),
    )


def title(study: Study, name: str | None = None) -> str:
    """A metric's label as a heading; by default that of :func:`label`.

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
    """The evaluations by which the runs are judged, one row a run."""
    rows, name = own(study), label(study)
    found: pd.DataFrame = rows[rows["metric"] == name]
    return found


@once
def of_runs(study: Study) -> pd.DataFrame:
    """One row a run that has a distance: ``run``, ``variant``, ``seed``, ``value``, ``point``.

    ``value`` is the mean over the run's sample sets, ``own`` that of its own set. ``point`` is the
    run's place on the tune axes (``train.learning_rate 0.01``), empty where there are none.

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
    """Where on the tune axes each row of ``runs`` is, in words."""
    rows = study.runs[list(study.tune)].to_dict("records")
    return pd.Series(list(map(_words, rows)), index=study.runs.index, dtype=str)


def in_role(study: Study, role: str) -> pd.DataFrame:
    """The evaluations of the judged metric in another role, of any count."""
    rows, name = study.evaluations, label(study).split("@")[0]
    return rows[(rows["role"] == role) & (rows["metric"].str.split("@").str[0] == name)]


@once
def repeats(study: Study) -> pd.DataFrame:
    """The distances of further sample sets of the run's own size and reference."""
    of_run = judged(study)
    same = of_run.columns.intersection(["run", "weights", "count", "reference.hash"])
    return in_role(study, "repeat").merge(of_run[same])


def _words(point: Mapping[Hashable, Any]) -> str:
    return ", ".join(
        f"{str(key).removeprefix('tune.')} {levels.text(value)}" for key, value in point.items()
    )
