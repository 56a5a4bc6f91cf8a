"""Figures of distances: per variant, over parameters, training, EMA width and guidance."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis.figures import panels
from analysis.figures.figure import figure
from analysis.judging import comparison, distances, paired
from analysis.study import NothingToShow, Study

SWEPT = {"sampling.ema_std": "EMA width (relative)", "sampling.guidance": "guidance scale"}


@figure(
    title="Distance per variant",
    caption="Dots: one run each. Bar: mean over seeds. Line: its 95 % t interval; an arrow marks "
    "an interval that leaves the axis.",
    place=10,
)
def distance(study: Study) -> Figure:
    """Draw distance per variant: each seed's point, the mean (bar), its 95 % t interval (line).

    The points set the axis' limits; an interval that leaves the axis ends in an arrow.
    """
    table = comparison.distances(study)
    rows = {}
    for variant in panels.shown_in_rows(study, study.variants):
        average = paired.average(table, variant)
        text = f"n = {average.n}" if average.n else "no result"
        rows[variant] = panels.VariantRow(list(paired.values(table, variant)), average, text)
    return panels.row_a_variant(study, rows, f"{distances.title(study)} (smaller is better)")


@figure(
    title="Distance against parameters",
    caption="Variants with the same flags and different conditioning. Pale dots: one run each. "
    "Mark: mean over seeds, with its 95 % t interval; an arrow marks an interval that leaves the "
    "axis.",
    place=30,
)
def distance_parameters(study: Study) -> Figure:
    """Draw distance over parameters, for variants that differ in conditioning (Table 2).

    Each seed's point (pale), the mean and its 95 % t interval.
    """
    table, name = comparison.distances(study), distances.title(study)
    variants = [v for group in comparison.modulation(study) for v in group.variants]
    there = set(table["variant"].astype(str))
    variants = panels.shown(study, [v for v in variants if v in there])
    if not variants:
        raise NothingToShow("no variants differ in conditioning alone")
    look = panels.looks(study)
    parameters = study.designs["parameters"]
    figure, axes = panels.single()
    means = {variant: paired.average(table, variant) for variant in variants}
    values = table.loc[table["variant"].isin(variants), "value"]
    axes.set_ylim(panels.limits(values, means.values()))
    for variant, average in means.items():
        values, color = paired.values(table, variant), look[variant].color
        x = float(parameters[variant])
        axes.scatter([x] * len(values), values, s=10, color=color, alpha=0.45, linewidths=0)
        panels.interval(axes, x, average, color, vertical=True)
        axes.plot(x, average.value, marker=look[variant].marker, color=color, markersize=5)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel="parameters", ylabel=name)
    panels.legend(figure, study, variants, 2.1, markers=True)
    return figure


@figure(
    title="Distance over training",
    caption="EMA snapshots of earlier steps, sampled and measured like the end of the run. "
    "Marks: mean over seeds. Pale dots: one run each.",
    place=80,
)
def distance_training(study: Study) -> Figure:
    """Draw the mean distance over training steps, at the snapshots that were evaluated."""
    rows = variations(study, "sampling.snapshot")
    if rows.empty:
        raise NothingToShow("no run was evaluated at more than one training step")
    figure, axes = panels.single()
    _curve(axes, rows, study, "sampling.snapshot")
    axes.set(xlabel="training step", ylabel=distances.title(study))
    panels.plain_log(axes)
    panels.thousands(axes)
    panels.legend(figure, study, rows["variant"].astype(str), 2.0, markers=True)
    return figure


@figure(
    title="Distance over EMA width and guidance",
    caption="One setting changes, the other is the run's own. Marks: mean over seeds. Pale dots: "
    "one run each.",
    place=90,
)
def sweep(study: Study) -> Figure:
    """Draw the mean distance over EMA width and guidance scale; all else is as in the run."""
    found = {key: variations(study, key) for key in SWEPT}
    found = {key: rows for key, rows in found.items() if not rows.empty}
    if not found:
        raise NothingToShow("no run was evaluated over EMA widths or guidance scales")
    figure, grid = panels.panels(len(found), len(found), sharey=True)
    for axes, (key, rows) in zip(grid, found.items(), strict=True):
        _curve(axes, rows, study, key)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel=SWEPT[key], ylabel="")
    grid[0].set_ylabel(distances.title(study))
    there = {str(v) for rows in found.values() for v in rows["variant"]}
    panels.legend(figure, study, there, 1.9, markers=True)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, study: Study, key: str) -> None:
    """Draw the mean over seeds as a line, and each seed as a point."""
    look = panels.looks(study)
    means = rows.groupby(["variant", key], observed=True)["value"].mean().reset_index()
    panels.lines(axes, means, study, x=key, y="value", markers=True)
    for variant in panels.shown(study, rows["variant"].astype(str)):
        mine = rows[rows["variant"] == variant]
        axes.scatter(
            mine[key], mine["value"], s=4, color=look[variant].color, alpha=0.4, linewidths=0
        )


def variations(study: Study, key: str) -> pd.DataFrame:
    """Return a run's own evaluation and those that differ from it only in the setting ``key``.

    One row per run and value: ``variant``, ``seed``, the key and ``value`` (the judged distance).
    Empty if no evaluation differs.
    """
    name, evaluations = distances.label(study), study.evaluations
    if key not in evaluations:
        return evaluations.iloc[:0]
    rows = panels.of_chosen(study, evaluations[evaluations["metric"] == name])
    rows = rows[rows["role"].isin(["run", "sweep"])]
    same = [
        column
        for column in rows.columns
        if column.startswith(("sampling.", "reference.")) or column in ("weights", "count")
    ]
    same = [column for column in same if column not in (key, "sampling.ema_error")]
    own = rows[rows["role"] == "run"].drop_duplicates("run", keep="last").set_index("run")[same]
    rows = rows[rows["run"].isin(own.index)]
    theirs = own.loc[rows["run"]].set_axis(rows.index)
    equal = (rows[same] == theirs) | (rows[same].isna() & theirs.isna())
    rows = rows[equal.all(axis=1)].drop_duplicates(["run", key], keep="last")
    rows = rows[rows.groupby("run")[key].transform("nunique") > 1]
    table: pd.DataFrame = rows[["variant", "seed", key, "value"]]
    return table.astype({key: float, "value": float})
