"""Distances: per variant, against parameters, over training, over EMA width and guidance."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis.figures import panels, style
from analysis.judging import comparison
from analysis.study import NothingToShow, Study

SWEPT = {"sampling.ema_std": "EMA width (relative)", "sampling.guidance": "guidance scale"}


@style.styled
def distance(study: Study) -> Figure:
    """Distance per variant: each seed's point, the mean (bar) and its 95 % t interval (line).

    The axis follows the points; an interval that leaves it ends in an arrow.
    """
    table, name = comparison.distances(study), comparison.title(study)
    variants, look = panels.shown(study, study.variants, panels.ROWS), panels.looks(study)
    figure, axes = panels.rows(variants)
    axes.set_xlim(panels.limits(table.loc[table["variant"].isin(variants), "value"]))
    for row, variant in enumerate(variants):
        values, color = comparison.values(table, variant), look[variant].color
        average = comparison.average(table, variant)
        panels.row_points(axes, row, list(values), color)
        panels.row_estimate(axes, row, average, color)
        panels.row_text(axes, row, f"n = {average.n}" if average.n else "no result")
    axes.set(xlabel=f"{name} (smaller is better)", ylabel="")
    return figure


@style.styled
def distance_parameters(study: Study) -> Figure:
    """Distance against parameters of the variants that differ in conditioning (Table 2).

    Each seed's point (pale), the mean and its 95 % t interval.
    """
    table, name = comparison.distances(study), comparison.title(study)
    variants = [v for group in comparison.modulation(study) for v in group.variants]
    there = set(table["variant"].astype(str))
    variants = panels.shown(study, [v for v in variants if v in there])
    if not variants:
        raise NothingToShow("no variants differ in conditioning alone")
    look = panels.looks(study)
    parameters = study.designs["parameters"]
    figure, axes = panels.single()
    axes.set_ylim(panels.limits(table.loc[table["variant"].isin(variants), "value"]))
    for variant in variants:
        values, color = comparison.values(table, variant), look[variant].color
        x, average = float(parameters[variant]), comparison.average(table, variant)
        axes.scatter([x] * len(values), values, s=10, color=color, alpha=0.45, linewidths=0)
        panels.interval(axes, x, average, color, vertical=True)
        axes.plot(x, average.value, marker=look[variant].marker, color=color, markersize=5)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel="parameters", ylabel=name)
    height = panels.legend(figure, study, variants, markers=True)
    figure.set_size_inches(style.COLUMN, 2.1 + height)
    return figure


@style.styled
def distance_training(study: Study) -> Figure:
    """Distance over training steps, of the snapshots that were evaluated; the mean over seeds.

    Raises:
        NothingToShow: when no run was evaluated at more than its end.
    """
    rows = variations(study, "sampling.snapshot")
    if rows.empty:
        raise NothingToShow("no run was evaluated at more than one training step")
    figure, axes = panels.single()
    _curve(axes, rows, study, "sampling.snapshot")
    axes.set(xlabel="training step", ylabel=comparison.title(study))
    panels.plain_log(axes)
    panels.thousands(axes)
    height = panels.legend(figure, study, rows["variant"].astype(str), markers=True)
    figure.set_size_inches(style.COLUMN, 2.0 + height)
    return figure


@style.styled
def sweep(study: Study) -> Figure:
    """Distance over EMA width and over guidance scale, all else as the run's own; mean over seeds.

    Raises:
        NothingToShow: when no run was evaluated at more than its own setting.
    """
    found = {key: variations(study, key) for key in SWEPT}
    found = {key: rows for key, rows in found.items() if not rows.empty}
    if not found:
        raise NothingToShow("no run was evaluated over EMA widths or guidance scales")
    figure, grid = panels.panels(len(found), len(found), sharey=True)
    for axes, (key, rows) in zip(grid, found.items(), strict=True):
        _curve(axes, rows, study, key)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel=SWEPT[key], ylabel="")
    grid[0].set_ylabel(comparison.title(study))
    there = {str(v) for rows in found.values() for v in rows["variant"]}
    height = panels.legend(figure, study, there, markers=True)
    figure.set_size_inches(style.COLUMN, 1.9 + height)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, study: Study, key: str) -> None:
    """The mean over seeds as a line, each seed's point beside it."""
    look = panels.looks(study)
    means = rows.groupby(["variant", key], observed=True)["value"].mean().reset_index()
    panels.lines(axes, means, study, x=key, y="value", markers=True)
    for variant in panels.shown(study, rows["variant"].astype(str)):
        mine = rows[rows["variant"] == variant]
        axes.scatter(
            mine[key], mine["value"], s=4, color=look[variant].color, alpha=0.4, linewidths=0
        )


def variations(study: Study, key: str) -> pd.DataFrame:
    """The rows of the study's distance that differ from the run's own in ``key`` alone, and those.

    None where nothing differs. ``variant``, ``seed``, the key and ``value``, a row a run and point.
    """
    name, evaluations = comparison.label(study), study.evaluations
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
