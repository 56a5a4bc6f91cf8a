"""The tuning curve: distance over each tuned value, with each variant's best value."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis.figures import panels, style
from analysis.figures.figure import figure
from analysis.judging import distances, tuning
from analysis.judging.statistics import Estimate
from analysis.study import Study
from mpdit.decisions.family import LEAST_SEEDS


@figure(
    title="Tuning curve",
    caption="Marks: mean over seeds, with its 95 % t interval if there are at least three seeds. "
    "If several values are tuned, the others are at the variant's best. Filled: the variant's "
    "best.",
    place=100,
)
def tuning_curve(study: Study) -> Figure:
    """Draw the mean distance over each tuned value, with the others at the variant's best."""
    points = tuning.curve(study).astype({"variant": str})
    columns = min(2, len(study.tune))
    figure, grid = panels.panels(len(study.tune), columns, sharey=True)
    for axes, key in zip(grid, study.tune, strict=True):
        _draw(axes, points, study, key)
        axes.set_xlabel(key.removeprefix("tune."))
    panels.plain_log(grid[0])
    for axes in grid[::columns]:
        axes.set_ylabel(distances.title(study))
    height = 1.7 * -(-len(grid) // columns) + 0.3
    panels.legend(figure, study, points["variant"], height, markers=True)
    return figure


def _draw(axes: Axes, points: pd.DataFrame, study: Study, key: str) -> None:
    look, variants = panels.looks(study), panels.shown(study, points["variant"])
    axes.set_ylim(0.5 * points["mean"].min(), 2 * points["mean"].max())
    values = list(dict.fromkeys(points[key]))
    numbers = pd.api.types.is_numeric_dtype(points[key]) and min(values) > 0
    places = {value: value if numbers else i for i, value in enumerate(values)}
    others = [other for other in study.tune if other != key]
    for variant in variants:
        mine = points[points["variant"] == variant]
        best = mine[mine["best"]].iloc[0]
        mine = mine[(mine[others] == best[others]).all(axis=1)]
        x, color = mine[key].map(places).astype(float), look[variant].color
        dashes = {"dashes": look[variant].dashes} if look[variant].dashes else {}
        (line,) = axes.plot(x, mine["mean"], color=color, marker=look[variant].marker, **dashes)
        line.set_markerfacecolor(style.PAPER)
        axes.plot(places[best[key]], best["mean"], marker=look[variant].marker, color=color)
        for at, row in zip(x, mine.to_dict("records"), strict=True):
            if row["seeds"] < LEAST_SEEDS:  # an interval of one degree of freedom hides the curves
                continue
            found = Estimate(row["mean"], row["low"], row["high"], row["seeds"])
            panels.interval(axes, at, found, color, vertical=True)
    if not numbers:
        axes.set_xticks(list(places.values()), [str(value) for value in values])
    elif max(values) >= 10 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(panels.short_number)
        axes.xaxis.set_minor_formatter(NullFormatter())
