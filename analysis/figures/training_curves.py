"""Figures of training: loss and speed."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import panels
from analysis.figures.figure import figure
from analysis.judging import statistics
from analysis.judging.speed import of_runs, side_by_side
from analysis.study import NothingToShow, Study


@figure(
    title="Training loss",
    caption="Running mean over a twentieth of training, then mean over seeds.",
    place=70,
)
def loss(study: Study) -> Figure:
    """Draw training loss over steps: running mean over a twentieth of the run, then over seeds."""
    data = panels.of_chosen(study, study.metrics)[["run", "variant", "step", "loss"]].dropna()
    data = panels.of_shown(study, data)
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
    panels.legend(figure, study, means.index.get_level_values("variant").astype(str), 2.0)
    return figure


@figure(
    title="Training speed",
    caption="Dots: one run each, the median of its logged rows. Bar and line: mean over seeds and "
    "its 95 % t interval. Right: the mean divided by the first variant's.",
    place=130,
)
def speed(study: Study) -> Figure:
    """Draw training speed per variant: each run, the mean and its interval (`judging.speed`)."""
    runs = of_runs(study).astype({"variant": str})
    variants = panels.shown_in_rows(study, runs["variant"])
    runs = runs[runs["variant"].isin(variants)]
    speeds = dict(iter(runs.groupby("variant")["images_per_s"]))
    label = "training speed (images/s; larger is faster)"
    if shared := len(side_by_side(study) & set(runs["run"])):
        label += f"\n{shared} of {len(runs)} runs shared a host, which slows them"
    first = speeds[variants[0]].mean()
    rows = {
        variant: panels.VariantRow(
            list(speeds[variant]),
            statistics.mean(speeds[variant]),
            f"× {speeds[variant].mean() / first:.2f}",
        )
        for variant in variants
    }
    return panels.row_a_variant(study, rows, label)
