"""Forest plots: one effect per row, with its interval and the margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import panels, style
from analysis.figures.figure import figure
from analysis.judging import answers as judged
from analysis.judging import distances
from analysis.judging.answers import Answer
from analysis.judging.statistics import Estimate
from analysis.study import NothingToShow, Study
from mpdit.decisions.family import Rules

COLORS = {
    "better": style.PALETTE[2],
    "worse": style.PALETTE[3],
    "equivalent": style.PALETTE[0],
    "undecided": style.PALETTE[6],
}
ONE_SCREEN = 16
"""The most comparisons in the first figure of a report."""
TICKS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 30, 100, 1000, 1e4, 1e6)
"""Ratios at which an axis may have a tick, and at their inverses."""


@dataclass(frozen=True)
class ForestRow:
    """An effect on the inner scale of `Rules`, and a text to the right of the axes."""

    name: str
    estimate: Estimate
    text: str
    color: str
    is_filled: bool


@figure(
    title="Answers",
    caption="Each variant against its baseline: the change of the mean, with an interval that is "
    "corrected for all comparisons. An arrow marks an interval that leaves the axis. Band: the "
    "margin within which a change does not matter. n: seeds. For a crossed grid: each level "
    "against its factor's first level, and the interactions with a verdict better or worse.",
    place=5,
)
def answers(study: Study) -> Figure:
    """Draw every comparison as a row: its change, interval, verdict and seeds.

    Of more than `ONE_SCREEN` comparisons, those with a verdict are drawn first.
    """
    rules, found = distances.rules(study), judged.answers(study)
    if not found:
        raise NothingToShow("there are no two variants to compare")
    found = [answer for answer in found if answer.is_called or not answer.is_interaction]
    if len(found) > ONE_SCREEN:
        panels.left_out(ONE_SCREEN, len(found), "comparisons, first those with a verdict")
        found = sorted(found, key=lambda answer: answer.is_open)[:ONE_SCREEN]
    baselines = {answer.baseline for answer in found}
    rows = []
    for answer in found:
        effect, low, high = (_inner(rules, x) for x in (answer.effect, answer.low, answer.high))
        estimate = Estimate(effect, low, high, answer.seeds)
        failed = f", {answer.failed} failed" if answer.failed else ""
        of_many = len(baselines) > 1 and not judged.is_crossed(study)
        rows.append(
            ForestRow(
                _name(answer) if of_many else answer.label,
                estimate,
                f"{answer.verdict}, n = {answer.seeds}{failed}",
                COLORS[answer.verdict],
                not answer.is_open,
            )
        )
    is_named = len(baselines) == 1 and not judged.is_crossed(study)
    against = f" against {baselines.pop()}" if is_named else ""
    return draw(rows, rules, distances.title(study), against)


def _inner(rules: Rules, value: float) -> float:
    return rules.inner(value) if value > 0 or rules.scale == "difference" else math.nan


def draw(rows: Sequence[ForestRow], rules: Rules, name: str, against: str = "") -> Figure:
    """Draw the rows from the top. If lower is better, left is better."""
    figure, axes = panels.rows([row.name for row in rows])
    # the effects set the axis' limits, so that one wide interval does not squeeze all others
    values = np.abs([row.estimate.value for row in rows])
    halves = np.array([row.estimate.half_width for row in rows])
    known = halves[np.isfinite(halves)]
    typical = 1.5 * float(np.median(known)) if len(known) else 0.0
    finite = values[np.isfinite(values)]
    largest = float(finite.max()) if len(finite) else 0.0
    reach = 1.15 * max(largest + typical / 2, typical, 1.5 * rules.inner_margin) or 1.0
    ends = np.abs([[row.estimate.low, row.estimate.high] for row in rows])
    reach = float(np.max(1.05 * ends[ends < 1.4 * reach], initial=reach))  # no arrow for a little
    axes.set_xlim(-reach, reach)
    if rules.inner_margin:
        band = min(rules.inner_margin, reach)
        axes.axvspan(-band, band, color=style.PALETTE[0], alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(0, color=style.INK, linewidth=0.6)
    for at, row in enumerate(rows):
        panels.interval(axes, at, row.estimate, row.color)
        face = row.color if row.is_filled else style.PAPER
        axes.plot(
            row.estimate.value, at, marker="o", markersize=4.5, color=row.color,
            markerfacecolor=face, zorder=3,
        )  # fmt: skip
        panels.row_text(axes, at, row.text)
    if rules.scale == "ratio":
        ticks = _ticks(reach)
        texts = map(_times if ticks[-1] > 2 else _percent, ticks)
        axes.set_xticks([math.log(tick) for tick in ticks], list(texts))
    better = "left" if rules.lower_is_better else "right"
    margin = ", shaded: the margin" if rules.inner_margin else ""
    lines = style.wrap(f"change of {name}{against}", panels.LINE), f"({better} is better{margin})"
    axes.set(xlabel="\n".join(lines), ylabel="")
    return figure


def _ticks(reach: float) -> list[float]:
    """Return the ticks: a ratio near the end of the axis, its inverse, and 1."""
    inside = [tick for tick in TICKS if math.log(tick) < 0.85 * reach]
    return [1 / inside[-1], 1.0, inside[-1]] if inside else [1.0]


def _times(ratio: float) -> str:
    return f"×{ratio:.2g}"


def _percent(ratio: float) -> str:
    return "0" if ratio == 1 else f"{100 * (ratio - 1):+.0f} %".replace("-", "−")


def _name(answer: Answer) -> str:
    """Return ``B-cosine vs A-none``. A long name is broken before ``vs``, not within a variant."""
    name = f"{answer.variant} vs {answer.baseline}"
    is_long = "\n" in style.wrap(name)
    return f"{answer.variant}\nvs {answer.baseline}" if is_long else name
