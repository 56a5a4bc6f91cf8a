"""How training went: loss, and speed."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import panels, style
from analysis.judging import statistics
from analysis.judging.speed import of_runs, side_by_side
from analysis.study import NothingToShow, Study


@style.styled
def loss(study: Study) -> Figure:
    """Training loss over steps: running mean over a twentieth of the run, then over seeds."""
    data = panels.of_chosen(study, study.metrics)[["run", "variant", "step", "loss"]].dropna()
    if data.empty:
        raise NothingToShow("no run has logged a loss yet")
    smooth = [
        rows.assign(loss=rows["loss"].rolling(max(1, len(rows) // 20), min_periods=1).mean())
        for _, rows in data.groupby("run", sort=False)
    ]
    means = pd.concat(smooth).groupby(["variant", "step"], observed=True)["loss"].mean()
    figure, axes = panels.single()
    panels.lines(axes, means.reset_index(), study, x="step", y="loss")
    axes.set(xlabel="step", ylabel="training loss (MSE + VLB)")
    panels.plain_log(axes)
    panels.thousands(axes)
    height = panels.legend(figure, study, means.index.get_level_values("variant").astype(str))
    figure.set_size_inches(style.COLUMN, 2.0 + height)
    return figure


@style.styled
def speed(study: Study) -> Figure:
    """Training speed per variant: each run's, the mean and its interval (`judging.speed`)."""
    runs = of_runs(study).astype({"variant": str})
    variants, look = panels.shown(study, runs["variant"], panels.ROWS), panels.looks(study)
    runs = runs[runs["variant"].isin(variants)]
    speeds = {variant: group["images_per_s"] for variant, group in runs.groupby("variant")}
    figure, axes = panels.rows(variants)
    axes.set_xlim(panels.limits(runs["images_per_s"]))
    for row, variant in enumerate(variants):
        values, color = speeds[variant], look[variant].color
        panels.row_points(axes, row, list(values), color)
        panels.row_estimate(axes, row, statistics.mean(values), color)
        panels.row_text(axes, row, f"× {values.mean() / speeds[variants[0]].mean():.2f}")
    label = "training speed (images/s; larger is faster)"
    if shared := len(side_by_side(study) & set(runs["run"])):
        label += f"\n{shared} of {len(runs)} runs shared a host, which slows them"
    axes.set(xlabel=label, ylabel="")
    return figure
