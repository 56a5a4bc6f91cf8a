"""Figures of magnitudes: activations over depth; activations, weights, gradients over steps.

All magnitudes are root mean squares, measured by ``mpdit.training.probe``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from analysis.figures import panels, style
from analysis.figures.figure import figure
from analysis.study import NothingToShow, Study

SITES = {
    "residual": "residual stream",
    "attention": "attention output",
    "mlp": "MLP output",
    "modulated": "modulated input",
}
LEARNING = {
    "residual": "activations (residual)",
    "weight": "weights",
    "gradient": "gradients",
    "update": "relative updates",
}
PALE = "#e8e8e8"
"""The pale end of a variant's shades."""
MOMENTS = (0.0, 0.1, 1.0)
"""Fractions of training: start, early, end. Most of the change is early."""


@figure(
    title="Activation magnitude across depth",
    caption="At the first probe, after a tenth of training, and at the last probe; mean over "
    "seeds. RMS over channels, averaged over positions; magnitude preservation aims at 1. Values "
    "that are zero at initialization are not drawn.",
    place=40,
)
def magnitude_depth(study: Study) -> Figure:
    """Draw mean activation magnitude over depth: one row per site, one column per step."""
    data = _at_moments(study)
    sites = [site for site in SITES if site in set(data["site"])]
    moments = list(dict.fromkeys(data["moment"]))
    keys = ["moment", "site", "variant", "block"]
    means = data.groupby(keys, observed=True)["magnitude"].mean().reset_index()
    columns = len(moments)
    figure, grid = panels.panels(len(sites) * columns, columns, sharex=True, sharey="row")
    for row, site in enumerate(sites):
        for column, moment in enumerate(moments):
            axes = grid[row * columns + column]
            part = means[(means["site"] == site) & (means["moment"] == moment)]
            panels.lines(axes, part, study, x="block", y="magnitude")
            axes.set(xlabel="", ylabel="")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if row == 0:
                axes.set_title(moment)
        grid[row * columns].set_ylabel(SITES[site].replace(" ", "\n", 1))
        _around_one(grid[row * columns])
    panels.name_bottom(grid, columns, "block")
    figure.supylabel("magnitude (RMS)", fontsize=7)
    panels.legend(figure, study, means["variant"].astype(str), 0.95 * len(sites) + 0.35)
    return figure


@figure(
    title="Activation magnitude over training",
    caption="The residual stream after each block, from the first block (pale) to the last (full "
    "colour), mean over seeds. Numbers at the lines' ends: the first and the last block. All "
    "panels have the same axes.",
    place=50,
)
def magnitude_training(study: Study) -> Figure:
    """Draw the residual stream's magnitude over training: a panel per variant, a line per block."""
    data = panels.of_chosen(study, study.magnitudes)
    data = _positive(panels.of_shown(study, data[data["site"] == "residual"]))
    variants = panels.shown(study, data["variant"].unique())
    look = panels.looks(study)
    means = data.groupby(["variant", "step", "block"], observed=True)["magnitude"].mean()
    titles = [style.wrap(variant, 24) for variant in variants]
    figure, grid = panels.panels(len(variants), 2, sharex=True, sharey=True)
    for axes, variant, title in zip(grid, variants, titles, strict=True):
        traces = means[variant].unstack("block")
        tint = LinearSegmentedColormap.from_list("", (PALE, look[variant].color))
        shades = tint(np.linspace(0, 1, len(traces.columns) + 2))[2:]
        for block, shade in zip(traces.columns, shades, strict=True):
            axes.plot(traces.index, traces[block], color=shade, label=f"block {block}")
        for text, end in _block_labels(traces.iloc[-1]):
            axes.annotate(
                text, (traces.index[-1], end), xytext=(2, 0), textcoords="offset points",
                va="center", fontsize=5.5,
            )  # fmt: skip
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        panels.thousands(axes)
    panels.name_bottom(grid, 2, "step")
    _around_one(grid[0])
    figure.supylabel("residual magnitude (RMS)", fontsize=7)
    rows = [titles[at : at + 2] for at in range(0, len(titles), 2)]
    more = sum(max(title.count("\n") for title in row) for row in rows)
    figure.set_size_inches(style.COLUMN, 0.6 + 1.05 * len(rows) + 0.13 * more)
    return figure


@figure(
    title="Activations, weights, gradients, updates",
    caption="RMS per block, mean over blocks and seeds: the residual stream after each block; the "
    "block's weight matrices; their gradients before clipping; and the change of the weights in "
    "one step, divided by the weights.",
    place=60,
)
def magnitudes(study: Study) -> Figure:
    """Draw activations, weights, gradients and relative updates over training, by variant.

    Means over blocks and seeds. Figure 3 of EDM2 (arXiv:2312.02696) shows the first two.
    """
    data = panels.of_chosen(study, study.magnitudes)
    data = _positive(panels.of_shown(study, data[data["site"].isin(list(LEARNING))]))
    kinds = [kind for kind in LEARNING if kind in set(data["site"])]
    means = data.groupby(["site", "variant", "step"], observed=True)["magnitude"].mean()
    figure, grid = panels.panels(len(kinds), 2, sharex=True)
    for axes, kind in zip(grid, kinds, strict=True):
        panels.lines(axes, means[kind].reset_index(), study, x="step", y="magnitude")
        axes.set(xlabel="", ylabel="", title=LEARNING[kind])
        panels.plain_log(axes)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        panels.thousands(axes)
    panels.name_bottom(grid, 2, "step")
    figure.supylabel("magnitude (RMS)", fontsize=7)
    height = 1.25 * -(-len(kinds) // 2) + 0.3
    panels.legend(figure, study, data["variant"].unique(), height)
    return figure


@style.styled
def activations(study: Study, variant: str, block: int, step: int) -> Figure:
    """Draw one variant's activations: of one block over training, and at one step over depth.

    Means over seeds. Each panel marks the block or step of the other. For use in a notebook.

    Raises:
        NothingToShow: when the variant has no such probe.
    """
    data = panels.of_chosen(study, study.magnitudes)
    data = _positive(data[(data["variant"] == variant) & data["site"].isin(list(SITES))])
    steps = data["step"].unique()
    if step not in steps or block not in set(data["block"]):
        raise NothingToShow(f"{variant} has no probe of block {block} at step {step}")
    means = data.groupby(["site", "step", "block"])["magnitude"].mean()
    figure, (over_steps, over_depth) = panels.panels(2, 2, sharey=True)
    for site, color in zip(SITES, style.PALETTE, strict=False):
        if site in means.index.get_level_values("site"):
            trace, profile = means[site].xs(block, level="block"), means[site][step]
            over_steps.plot(trace.index, trace, color=color, label=SITES[site])
            over_depth.plot(profile.index, profile, color=color, marker="o")
    over_steps.set(xlabel="step", ylabel="magnitude (RMS)", title=f"block {block}")
    over_depth.set(xlabel="block", title=f"step {step:,}")
    for axes, where in ((over_steps, step), (over_depth, block)):
        axes.axvline(where, color=style.INK, linewidth=0.6, alpha=0.5)
    over_steps.xaxis.set_major_locator(MaxNLocator(4))
    over_depth.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panels.thousands(over_steps)
    _around_one(over_steps)
    handles = over_steps.get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle(style.wrap(variant, panels.LINE), fontsize=7)
    figure.set_size_inches(style.COLUMN, 2.4)
    return figure


def _at_moments(study: Study) -> pd.DataFrame:
    """Return each trained run's probes nearest to :data:`MOMENTS`; ``moment`` names the time."""
    trained = study.runs.loc[study.runs["trained"], "run"]
    data = panels.of_chosen(study, study.magnitudes)
    data = panels.of_shown(study, data[data["site"].isin(list(SITES))])
    data = _positive(data[data["run"].isin(trained)])
    probes = data[["run", "step"]].drop_duplicates()
    last = probes.groupby("run")["step"].transform("max")
    found: dict[str, pd.DataFrame] = {}
    for share in MOMENTS:
        off = (probes["step"] - share * last).abs()
        nearest = probes.loc[off.groupby(probes["run"]).idxmin()]
        steps = nearest["step"].unique()
        words = f"step {steps[0]:,.0f}" if len(steps) == 1 else f"{share:.0%} of training"
        found.setdefault(words, data.merge(nearest).assign(moment=words))
    return pd.concat(found.values(), ignore_index=True)


def _positive(data: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with positive magnitude, which a logarithmic axis can show."""
    data = data[data["magnitude"].astype(float) > 0]
    if data.empty:
        raise NothingToShow("no magnitudes have been probed yet")
    return data.astype({"magnitude": float})


def _block_labels(ends: pd.Series[float]) -> list[tuple[str, float]]:
    """Return labels for the lines of the first and last block; one label if they would overlap."""
    first, last = ends.index[0], ends.index[-1]
    if abs(np.log2(ends[last] / ends[first])) < 0.7:
        both = f"{first}" if first == last else f"{first}–{last}"
        return [(both, float(np.sqrt(ends[first] * ends[last])))]
    return [(f"{first}", float(ends[first])), (f"{last}", float(ends[last]))]


def _around_one(axes: Axes) -> None:
    """Make the axis logarithmic (base 2) and include 1."""
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low / 1.1, 0.45), max(high * 1.1, 2.2))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
