"""Helpers of the figures: the choice and look of variants, axes and legends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike

from analysis.figures import style
from analysis.judging import comparison
from analysis.judging.distances import rules
from analysis.judging.statistics import Estimate
from analysis.study import NothingToShow, Study, once

ROWS = 40
"""The most variants in a figure with one row per variant, if each name fits into `ROW_LINES`."""
ROW_LINES = 4
LINE = 44
"""Letters of a name that fit into one line of a column."""


@once
def ranking(study: Study) -> list[str]:
    """Return variants in grid order; if there are too many, the baseline, then by distance."""
    variants = study.variants
    if len(variants) <= style.SHOWN:
        return variants
    try:
        distances = comparison.distances(study)
    except NothingToShow:
        return variants
    means = distances.astype({"variant": str}).groupby("variant")["value"].mean()
    sign = 1 if rules(study).lower_is_better else -1
    return [variants[0], *sorted(variants[1:], key=lambda v: sign * means.get(v, sign * np.inf))]


@once
def looks(study: Study) -> dict[str, style.Look]:
    """Return the look of each variant, which is the same in all figures of the study."""
    return style.looks(ranking(study))


def shown(study: Study, there: Iterable[str], limit: int = style.SHOWN) -> list[str]:
    """Return the variants in ``there`` that are drawn, in grid order."""
    present = set(map(str, there))
    chosen = [variant for variant in ranking(study) if variant in present][:limit]
    left_out(len(chosen), len(present), "variants, the baseline and the best")
    return [variant for variant in study.variants if variant in set(chosen)]


def shown_in_rows(study: Study, there: Iterable[str]) -> list[str]:
    """Return the variants that a figure with one row per variant draws: fewer if names are long."""
    names = list(map(str, there))
    lines = max((1 + style.wrap(name).count("\n") for name in names), default=1)
    return shown(study, names, min(ROWS, ROWS * ROW_LINES // lines))


def left_out(drawn: int, there: int, what: str) -> None:
    """Record how many of all are drawn, for the figure's caption."""
    _counts.get([]).append((drawn, there, what))


Count = tuple[int, int, str]
_counts: ContextVar[list[Count]] = ContextVar("counts")


@contextmanager
def drawn() -> Iterator[list[Count]]:
    """Collect what `left_out` records while a figure is drawn."""
    counts: list[Count] = []
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def of_chosen(study: Study, data: pd.DataFrame) -> pd.DataFrame:
    """Return the data of the runs that figures show; of a tuned variant, at its best point."""
    chosen = comparison.chosen(study)
    return data if len(chosen) == len(study.runs) else data[data["run"].isin(chosen["run"])]


def of_shown(study: Study, data: pd.DataFrame) -> pd.DataFrame:
    """Return the data of the variants that are drawn (see `shown`)."""
    return data[data["variant"].isin(shown(study, data["variant"].unique()))]


def single(height: float = 2.0) -> tuple[Figure, Axes]:
    """Make one panel with the width of a column."""
    figure, grid = panels(1, 1)
    figure.set_size_inches(style.COLUMN, height)
    return figure, grid[0]


def panels(count: int, columns: int, **shares: Any) -> tuple[Figure, list[Axes]]:
    """Make ``count`` panels in rows of ``columns``. Set the height later, with the legend."""
    figure = Figure(figsize=(style.COLUMN, 2), layout="constrained")
    rows = -(-count // columns)
    grid = figure.subplots(rows, columns, squeeze=False, **shares).ravel()
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[
        :count
    ]:  # the number of ticks that fit is computed when drawn, in a notebook later
        axes.tick_params(axis="x", labelsize=style.RC["xtick.labelsize"])
        axes.tick_params(axis="y", labelsize=style.RC["ytick.labelsize"])
    return figure, list(grid[:count])


def name_bottom(grid: Sequence[Axes], columns: int, label: str) -> None:
    """Show the x axis' name and tick labels below the lowest panel of each column."""
    for axes in grid[-columns:]:
        axes.set_xlabel(label)
        axes.xaxis.set_tick_params(labelbottom=True)


def rows(names: Sequence[str]) -> tuple[Figure, Axes]:
    """Make axes with one row per name, from the top, as high as the names need."""
    wrapped = [style.wrap(name) for name in names]
    lines = sum(1.25 + 0.9 * text.count("\n") for text in wrapped)
    figure, axes = single(0.55 + 0.2 * lines)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), wrapped)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)
    return figure, axes


def interval(axes: Axes, at: float, found: Estimate, color: str, vertical: bool = False) -> None:
    """Draw an interval as a line, with an arrow at an end that leaves the axis.

    Set the axis' limits before.
    """
    if not np.isfinite(found.half_width):
        return
    low, high = axes.get_ylim() if vertical else axes.get_xlim()
    ends = np.clip([found.low, found.high], low, high)
    beyond = zip(ends, (found.low, found.high), "v^" if vertical else "<>", strict=True)
    parts = [
        (ends, ""),
        *((np.array([end]), arrow) for end, bound, arrow in beyond if end != bound),
    ]
    for values, marker in parts:
        x, y = (np.full_like(values, at), values)[:: 1 if vertical else -1]
        axes.plot(
            x, y, marker=marker, markersize=3, clip_on=not marker, color=color, linewidth=0.9,
            solid_capstyle="butt",
        )  # fmt: skip


class VariantRow(NamedTuple):
    """A variant's runs, their mean with its interval, and a text to the right of the axes."""

    values: list[float]
    mean: Estimate
    text: str


def row_a_variant(study: Study, found: Mapping[str, VariantRow], label: str) -> Figure:
    """Draw one row per variant: each run's point, the mean (bar) and its interval (line)."""
    look = looks(study)
    figure, axes = rows(list(found))
    values = np.concatenate([row.values for row in found.values()])
    axes.set_xlim(limits(values, [row.mean for row in found.values()]))
    for at, (variant, row) in enumerate(found.items()):
        color, ys = look[variant].color, [at] * len(row.values)
        axes.scatter(row.values, ys, s=20, color=color, alpha=0.8, linewidths=0, zorder=3)
        interval(axes, at, row.mean, color)
        if row.mean.n:
            axes.plot(row.mean.value, at, marker="|", color=color, markersize=12, mew=1.4)
        row_text(axes, at, row.text)
    axes.set(xlabel=label, ylabel="")
    return figure


def row_text(axes: Axes, row: int, text: str) -> None:
    """Write a text to the right of the axes, at a row."""
    axes.annotate(text, (1.04, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=6)


def limits(values: ArrayLike, means: Iterable[Estimate]) -> tuple[float, float]:
    """Return axis limits with space for the points, and for intervals up to their spread away.

    A wider interval would squeeze the points. The lower limit is negative only if a value is; a
    kernel distance can be.
    """
    points = np.asarray(values, dtype=float)
    span = np.ptp(points) or abs(points.max()) or 1
    ends = np.array([[mean.low, mean.high] for mean in means if np.isfinite(mean.half_width)])
    ends = np.append(ends, [points.min() - 0.35 * span, points.max() + 0.35 * span])
    ends = ends[(ends >= points.min() - span) & (ends <= points.max() + span)]
    low, high = ends.min() - 0.05 * span, ends.max() + 0.05 * span
    return float(max(0, low) if points.min() >= 0 else low), float(high)


def lines(
    axes: Axes, data: pd.DataFrame, study: Study, x: str, y: str, markers: bool = False
) -> None:
    """Draw one line per variant through its rows, in their order."""
    look, names = looks(study), shown(study, data["variant"].astype(str))
    by_variant = {str(name): rows for name, rows in data.groupby("variant", observed=True)}
    for name in names:
        rows, of = by_variant[name], look[name]
        (line,) = axes.plot(rows[x], rows[y], color=of.color, marker=of.marker if markers else "")
        line.set_markeredgewidth(0)
        if of.dashes:
            line.set_dashes(of.dashes)


def legend(
    figure: Figure, study: Study, there: Iterable[str], height: float, markers: bool = False
) -> None:
    """Add a legend below the axes, in as many columns as fit.

    The figure's height becomes ``height`` (inches) plus the legend's.
    """
    look, variants = looks(study), shown(study, there)
    names = [style.wrap(variant, LINE) for variant in variants]
    handles = [look[v].handle(name) for v, name in zip(variants, names, strict=True)]
    for handle in handles if not markers else []:
        handle.set_marker("")
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(1, min(3, int(style.COLUMN / (0.45 + 0.05 * longest))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2)
    count = sum(1 + name.count("\n") for name in names)
    figure.set_size_inches(style.COLUMN, height + 0.14 * -(-count // columns))


def plain_log(axes: Axes) -> None:
    """Make the y axis logarithmic with plain numbers as ticks, also between decades if it is short.

    The axis stays linear if it shows a value that is not positive, or if its ends are within a
    factor of 2: a logarithmic axis would look the same, with ticks of too many digits.
    """
    if axes.dataLim.y0 <= 0:
        return
    low, high = axes.get_ylim()
    if low > 0 and high < 2 * low:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    axes.yaxis.set_major_formatter(short_number)
    if decades < 1.5:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    round_ones = axes.yaxis.get_major_locator().tick_values(low, high)
    if sum(low <= tick <= high for tick in round_ones) < 2:
        axes.yaxis.set_minor_formatter(short_number)


def short_number(x: float, _position: float) -> str:
    """Return ``0.002`` or ``5·10⁻⁵`` as plain text, because math text is off for variant names."""
    if not x or abs(np.log10(abs(x))) < 4:
        return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.2g}"
    exponent = int(np.floor(np.log10(x) + 1e-9))
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    first = f"{x / 10.0**exponent:.2g}"
    return power if first == "1" else f"{first}·{power}"


def thousands(axes: Axes) -> None:
    """Label steps of a long training as ``40k``, with few enough ticks not to overlap."""
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if axes.get_xlim()[1] >= 10_000:
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
