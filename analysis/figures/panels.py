"""Shared by the figures: which variants are drawn and how they look, axes, legends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from analysis.figures import style
from analysis.judging import comparison
from analysis.judging.distances import rules
from analysis.judging.statistics import Estimate
from analysis.study import NothingToShow, Study, once

ROWS = 40
"""The most variants of a figure with a row for each."""
LINE = 44
"""Letters of a name that fit into one line of a column."""


@once
def ranking(study: Study) -> list[str]:
    """All variants in grid order; where they are too many, the baseline and then the best first."""
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
    """How each variant looks in all figures of the study."""
    return style.looks(ranking(study))


def shown(study: Study, there: Iterable[str], limit: int = style.SHOWN) -> list[str]:
    """Those of the variants with data that are drawn, in grid order."""
    present = set(map(str, there))
    chosen = [variant for variant in ranking(study) if variant in present][:limit]
    _counts.get([]).append((len(chosen), len(present)))
    return [variant for variant in study.variants if variant in set(chosen)]


_counts: ContextVar[list[tuple[int, int]]] = ContextVar("counts")


@contextmanager
def drawn() -> Iterator[list[tuple[int, int]]]:
    """Collect of how many variants `shown` chose how many, while a figure is drawn."""
    counts: list[tuple[int, int]] = []
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def of_chosen(study: Study, data: pd.DataFrame) -> pd.DataFrame:
    """The data of runs that figures show: a tuned variant's are at its best point."""
    chosen = comparison.chosen(study)
    return data if len(chosen) == len(study.runs) else data[data["run"].isin(chosen["run"])]


def of_shown(study: Study, data: pd.DataFrame) -> pd.DataFrame:
    """The data of the variants that are drawn (see `shown`)."""
    return data[data["variant"].isin(shown(study, data["variant"].unique()))]


def single(height: float = 2.0) -> tuple[Figure, Axes]:
    """One panel a column wide."""
    figure, grid = panels(1, 1)
    figure.set_size_inches(style.COLUMN, height)
    return figure, grid[0]


def panels(count: int, columns: int, **shares: Any) -> tuple[Figure, list[Axes]]:
    """``count`` panels in rows of ``columns``; the height is set when the legend is known."""
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
    """The x axis' name and ticks below the lowest panel of each column."""
    for axes in grid[-columns:]:
        axes.set_xlabel(label)
        axes.xaxis.set_tick_params(labelbottom=True)


def rows(names: Sequence[str]) -> tuple[Figure, Axes]:
    """Axes with a row a name, from the top, as high as the names need."""
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
    """The interval as a line, with an arrow where it leaves the axis.

    To be called when the axis has its limits.
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
    """A figure with a row a variant: each run's point, the mean (bar) and its interval (line)."""
    look = looks(study)
    figure, axes = rows(list(found))
    axes.set_xlim(limits(np.concatenate([row.values for row in found.values()])))
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
    """Right of the axes."""
    axes.annotate(text, (1.04, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=6)


def limits(values: np.ndarray | pd.Series[float]) -> tuple[float, float]:
    """The axis' limits: room for points and for intervals of about their spread.

    Negative only where a value is, as a kernel distance may be.
    """
    span = values.max() - values.min() or abs(values.max()) or 1
    low = values.min() - 0.4 * span
    return float(max(0, low) if values.min() >= 0 else low), float(values.max() + 0.4 * span)


def lines(
    axes: Axes, data: pd.DataFrame, study: Study, x: str, y: str, markers: bool = False
) -> None:
    """Draw a line a variant through the rows as they are."""
    look, names = looks(study), shown(study, data["variant"].astype(str))
    if not names:
        return
    order: dict[str, Any] = {"hue_order": names, "style_order": names}
    data = data.assign(variant=data["variant"].astype(str))
    sns.lineplot(
        data[data["variant"].isin(names)], x=x, y=y, hue="variant", style="variant", **order,
        palette=[look[v].color for v in names], dashes=[look[v].dashes for v in names],
        markers=[look[v].marker for v in names] if markers else False,
        markeredgewidth=0, errorbar=None, legend=False, ax=axes,
    )  # fmt: skip


def legend(
    figure: Figure, study: Study, there: Iterable[str], height: float, markers: bool = False
) -> None:
    """A legend below the axes, in as many columns as the names allow.

    It sets the figure's size: ``height`` (inches) and the legend's own.
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
    """A logarithmic y axis whose ticks are numbers; those between decades where it spans few.

    The axis stays linear where something drawn on it is not positive.
    """
    if axes.dataLim.y0 <= 0:
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    axes.yaxis.set_major_formatter(short_number)
    if decades < 1.5:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if decades < 0.4:  # perhaps no round number is inside
        axes.yaxis.set_minor_formatter(short_number)


def short_number(x: float, _position: float) -> str:
    """``0.002``, ``5·10⁻⁵``: text, because names of variants must not be read as mathematics."""
    if not x or abs(np.log10(abs(x))) < 4:
        return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.2g}"
    exponent = int(np.floor(np.log10(x) + 1e-9))
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    first = f"{x / 10.0**exponent:.2g}"
    return power if first == "1" else f"{first}·{power}"


def thousands(axes: Axes) -> None:
    """Steps of a long training as ``40k``, and few enough not to collide."""
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if axes.get_xlim()[1] >= 10_000:
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
