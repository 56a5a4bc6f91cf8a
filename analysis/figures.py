"""The figures: each a function ``Study`` → matplotlib Figure, one column wide.

They raise :class:`~analysis.load.NothingToShow` while the study has nothing of the kind. Where
there are more variants than a reader can tell apart, the first :data:`style.SHOWN` are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from analysis import comparison, statistics, style
from analysis.load import NothingToShow, Study

SITES = {
    "residual": "residual stream",
    "attention": "attention output",
    "mlp": "MLP output",
    "modulated": "modulated input",
}
SAMPLE_COLUMNS = 10
LINE = 44
"""Letters of a name that fit into one line of a column."""


@style.styled
def distance(study: Study) -> Figure:
    """Distance per variant: each seed's point, the mean (bar) and its 95 % t interval (line).

    The axis follows the points; an interval that leaves it ends in an arrow.
    """
    table, name = comparison.distances(study), comparison.title(study)
    variants, looks = study.variants, style.looks(study.variants)
    names = [style.wrap(variant) for variant in variants]
    lines = sum(1.25 + 0.9 * text.count("\n") for text in names)
    figure, axes = _figure(0.55 + 0.2 * lines)
    sns.stripplot(
        table, x="value", y="variant", hue="variant", order=variants, hue_order=variants,
        palette=[looks[v].color for v in variants], jitter=False, size=4.5, alpha=0.8,
        legend=False, ax=axes, zorder=3, linewidth=0,
    )  # fmt: skip
    low, high = _limits(table["value"])
    for row, variant in enumerate(variants):
        average = statistics.mean(comparison.values(table, variant))
        color = looks[variant].color
        if average.n > 1:
            ends = np.clip([average.low, average.high], low, high)
            axes.plot(ends, [row, row], color=color, linewidth=0.9, solid_capstyle="butt")
            for end, bound, marker in ((ends[0], average.low, "<"), (ends[1], average.high, ">")):
                if end != bound:
                    axes.plot(end, row, marker=marker, color=color, markersize=3, clip_on=False)
        if average.n:
            axes.plot(average.value, row, marker="|", color=color, markersize=12, mew=1.4)
        text = f"n = {average.n}" if average.n else "no result"
        axes.annotate(
            text, (1.04, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=6
        )
    axes.set(xlim=(low, high), ylim=(len(variants) - 0.4, -0.6), ylabel="")
    axes.set_xlabel(f"{name} (smaller is better)")
    axes.set_yticks(range(len(variants)), names)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)
    return figure


@style.styled
def magnitude_depth(study: Study) -> Figure:
    """Activation magnitude against depth at the end of training, the mean over seeds."""
    data = _mean_over_seeds(_at_the_end(study))
    sites = [site for site in SITES if site in set(data["site"])]
    figure = Figure(figsize=(style.COLUMN, 0), layout="constrained")
    rows = -(-len(sites) // 2)
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True).ravel()
    for axes in grid[len(sites) :]:
        axes.remove()
    for axes, site in zip(grid, sites, strict=False):
        _lines(axes, data[data["site"] == site], study, x="block", y="magnitude", markers=True)
        axes.set_title(SITES[site])
        axes.set(ylabel="", xlabel="")
        _magnitude_axis(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for axes in grid[: len(sites)][-2:]:
        axes.set_xlabel("block")
        axes.xaxis.set_tick_params(labelbottom=True)
    figure.supylabel("magnitude (RMS)", fontsize=7)
    height = 1.25 * rows + 0.3 + _legend(figure, study, set(data["variant"]), markers=True)
    figure.set_size_inches(style.COLUMN, height)
    return figure


@style.styled
def magnitude_training(study: Study) -> Figure:
    """Magnitude of the residual stream over training: a panel a variant, a line a block."""
    data = _of_chosen(study, study.magnitudes)
    data = _positive(data[data["site"] == "residual"], "magnitude")
    variants = _shown(study, data)
    looks = style.looks(study.variants)
    rows = -(-len(variants) // 2)
    figure = Figure(figsize=(style.COLUMN, 0.6 + 1.05 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True).ravel()
    means = data.groupby(["variant", "step", "block"], observed=True)["magnitude"].mean()
    for axes, variant in zip(grid, variants, strict=False):
        traces = means[variant].unstack("block")
        shades = sns.light_palette(looks[variant].color, len(traces.columns) + 2)[2:]
        for block, shade in zip(traces.columns, shades, strict=True):
            axes.plot(traces.index, traces[block], color=shade, label=f"block {block}")
        for text, end in _block_labels(traces.iloc[-1]):
            axes.annotate(
                text, (traces.index[-1], end), xytext=(2, 0), textcoords="offset points",
                va="center", fontsize=5.5,
            )  # fmt: skip
        axes.set_title(style.wrap(variant, 24))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        _thousands(axes)
    for axes in grid[len(variants) :]:
        axes.remove()
    for axes in grid[: len(variants)][-2:]:
        axes.set_xlabel("step")
        axes.xaxis.set_tick_params(labelbottom=True)
    _magnitude_axis(grid[0])
    figure.supylabel("residual magnitude (RMS)", fontsize=7)
    return figure


@style.styled
def loss(study: Study) -> Figure:
    """Training loss over steps: running mean over a twentieth of the run, then over seeds."""
    data = _of_chosen(study, study.metrics)[["run", "variant", "step", "loss"]].dropna()
    if data.empty:
        raise NothingToShow("no run has logged a loss yet")
    smooth = [
        rows.assign(loss=rows["loss"].rolling(max(1, len(rows) // 20), min_periods=1).mean())
        for _, rows in data.groupby("run", sort=False)
    ]
    means = pd.concat(smooth).groupby(["variant", "step"], observed=True)["loss"].mean()
    figure, axes = _figure(0)
    _lines(axes, means.reset_index(), study, x="step", y="loss")
    axes.set(yscale="log", xlabel="step", ylabel="training loss (MSE + VLB)")
    _plain_log(axes)
    _thousands(axes)
    shown = set(means.index.get_level_values("variant"))
    figure.set_size_inches(style.COLUMN, 2.0 + _legend(figure, study, shown))
    return figure


@style.styled
def samples(study: Study) -> Figure:
    """Samples of one seed: a row a variant, a column one noise and class in all rows."""
    runs, seed = _sampled(study)
    images, labels, columns = {}, np.empty(0), np.empty(0, dtype=int)
    for variant, run in runs.items():
        images[variant], labels = study.samples(run, 500)
        if not columns.size:
            columns = _one_a_class(labels)
        columns = columns[columns < len(labels)]
    strips = {variant: _strip(images[variant][columns]) for variant in runs}
    rows, width = next(iter(strips.values())).shape[:2]
    row = (style.COLUMN - 0.1) * rows / width
    layout = ConstrainedLayoutEngine(h_pad=0.01, w_pad=0.03, hspace=0, wspace=0)
    lines = sum(1 + style.wrap(variant, LINE).count("\n") for variant in runs)
    height = 0.25 + len(runs) * (row + 0.05) + lines * 0.12
    figure = Figure(figsize=(style.COLUMN, height), layout=layout)
    grid = figure.subplots(len(runs), 1, squeeze=False).ravel()
    for axes, (variant, strip) in zip(grid, strips.items(), strict=True):
        axes.imshow(strip, interpolation="nearest", aspect="equal")
        axes.set_axis_off()
        axes.set_title(style.wrap(variant, LINE), loc="left", pad=2)
    cell = width / len(columns)
    for i, label in enumerate(labels[columns]):
        grid[-1].annotate(
            f"{label}", ((i + 0.5) * cell - 0.5, rows), va="top", ha="center", fontsize=6,
            xytext=(0, -1), textcoords="offset points", annotation_clip=False,
        )  # fmt: skip
    figure.supxlabel(f"class (seed {seed})", fontsize=6.5)
    return figure


FIGURES: dict[str, Callable[[Study], Figure]] = {
    "distance": distance,
    "samples": samples,
    "magnitude_depth": magnitude_depth,
    "magnitude_training": magnitude_training,
    "loss": loss,
}


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(style.COLUMN, height or 2), layout="constrained")
    return figure, figure.subplots()


def _limits(values: pd.Series[float]) -> tuple[float, float]:
    """Room for the points and for intervals of about their own spread; a distance is positive."""
    span = values.max() - values.min() or abs(values.max()) or 1
    return float(max(0, values.min() - 0.4 * span)), float(values.max() + 0.4 * span)


def _shown(study: Study, data: pd.DataFrame) -> list[str]:
    there = set(data["variant"].astype(str))
    return [variant for variant in study.variants if variant in there][: style.SHOWN]


def _of_chosen(study: Study, data: pd.DataFrame) -> pd.DataFrame:
    """Each variant at its own best point of the tune axes, as in the tables."""
    return data[data["run"].isin(comparison.chosen(study)["run"])]


def _at_the_end(study: Study) -> pd.DataFrame:
    """Each trained run's last probe, block by block."""
    trained = study.runs.loc[study.runs["trained"], "run"]
    data = _of_chosen(study, study.magnitudes)
    data = data[data["run"].isin(trained)]
    last = data.groupby("run")["step"].transform("max")
    return _positive(data[(data["step"] == last) & (data["site"] != "conditioning")], "magnitude")


def _positive(data: pd.DataFrame, column: str) -> pd.DataFrame:
    """What a logarithmic axis can show."""
    data = data[data[column].astype(float) > 0]
    if data.empty:
        raise NothingToShow("no magnitudes have been probed yet")
    return data.astype({column: float})


def _mean_over_seeds(data: pd.DataFrame) -> pd.DataFrame:
    keys = ["variant", "site", "block"]
    return data.groupby(keys, observed=True)["magnitude"].mean().reset_index()


def _block_labels(ends: pd.Series[float]) -> list[tuple[str, float]]:
    """Names for the first and the last block's line, one for both where they would overlap."""
    first, last = ends.index[0], ends.index[-1]
    if abs(np.log2(ends[last] / ends[first])) < 0.7:
        both = f"{first}" if first == last else f"{first}–{last}"
        return [(both, float(np.sqrt(ends[first] * ends[last])))]
    return [(f"{first}", float(ends[first])), (f"{last}", float(ends[last]))]


def _lines(
    axes: Axes, data: pd.DataFrame, study: Study, x: str, y: str, markers: bool = False
) -> None:
    looks, shown = style.looks(study.variants), _shown(study, data)
    order: dict[str, Any] = {"hue_order": shown, "style_order": shown}
    data = data.assign(variant=data["variant"].astype(str))
    sns.lineplot(
        data[data["variant"].isin(shown)], x=x, y=y, hue="variant", style="variant", **order,
        palette=[looks[v].color for v in shown], dashes=[looks[v].dashes for v in shown],
        markers=[looks[v].marker for v in shown] if markers else False,
        markeredgewidth=0, errorbar=None, legend=False, ax=axes,
    )  # fmt: skip


def _legend(figure: Figure, study: Study, there: set[str], markers: bool = False) -> float:
    """Below the axes, in as many columns as the names allow. Returns its height in inches."""
    looks = style.looks(study.variants)
    shown = [variant for variant in study.variants if variant in there][: style.SHOWN]
    names = [style.wrap(variant, LINE) for variant in shown]
    handles = [looks[v].handle(name) for v, name in zip(shown, names, strict=True)]
    for handle in handles if not markers else []:
        handle.set_marker("")
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(1, min(3, int(style.COLUMN / (0.5 + 0.058 * longest))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2)
    lines = sum(1 + name.count("\n") for name in names)
    return 0.14 * -(-lines // columns)


def _magnitude_axis(axes: Axes) -> None:
    """Logarithmic: a residual stream that doubles with every block is a straight line."""
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low / 1.1, 0.45), max(high * 1.1, 2.2))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _plain_log(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:.2g}"))


def _thousands(axes: Axes) -> None:
    if axes.get_xlim()[1] >= 10_000:
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")


def _sampled(study: Study) -> tuple[dict[str, str], int]:
    """The runs, by variant, of the seed for which most variants have whole samples."""
    found: dict[int, dict[str, str]] = {}
    for run, variant, seed in comparison.chosen(study)[["run", "variant", "seed"]].itertuples(
        index=False
    ):
        try:
            study.samples(run, 1)
        except NothingToShow:
            continue
        found.setdefault(int(seed), {})[str(variant)] = run
    if not found:
        raise NothingToShow("no run has samples yet")
    seed = max(sorted(found), key=lambda s: len(found[s]))
    order = [variant for variant in study.variants if variant in found[seed]]
    return {variant: found[seed][variant] for variant in order[: style.SHOWN]}, seed


def _one_a_class(labels: np.ndarray) -> np.ndarray:
    """Indices of the first sample of each class, by class; filled up with the next samples."""
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    chosen = np.concatenate([first, rest])[:SAMPLE_COLUMNS]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def _strip(images: np.ndarray) -> np.ndarray:
    """N × H × W × C → one RGBA row, each pixel a square, transparent gaps between images."""
    scale = max(1, 64 // images.shape[2])
    rgb = images[..., :3] if images.shape[-1] >= 3 else np.repeat(images[..., :1], 3, axis=-1)
    rgb = rgb.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, _ = rgb.shape
    cells = np.zeros((n, height, width + max(2, width // 16), 4), dtype=np.uint8)
    cells[:, :, :width, :3] = rgb
    cells[:, :, :width, 3] = 255
    return np.concatenate(list(cells), axis=1)
