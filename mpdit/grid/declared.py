"""How a grid declares its decisions: the metric to compare by, and the margin that matters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpdit.catalogue import METRICS
from mpdit.catalogue.measures import Scale, labelled
from mpdit.errors import nearest
from mpdit.grid.settings import Setting

FRACTIONS = ("main", "two-way", "all")
"""The effects that a fraction can estimate; estimating all effects needs the whole grid."""


@dataclass(frozen=True)
class Declared:
    """The declared decisions, as study.json stores them.

    Attributes:
        metric: a metric's label without extractor and count; None: the distance most runs have.
        margin: the smallest change that matters: a fraction where ``scale`` is ratio (0.05), else
            a number in the metric's unit.
        looks: the numbers of seeds at which comparisons are decided; empty: once, with all seeds.
        tuning: the seeds on which each variant's point of the tune axes is chosen; empty where it
            is chosen on the seeds of the comparisons.
        fraction: the effects that the part of a crossed grid can estimate (``main`` or
            ``two-way``), or its number of variants; None for the whole grid.
        levels: with a fraction, each axis → its values in the grid's order. The first value is the
            one that the others are compared with; the first run of a fraction may have any value.
    """

    metric: str | None = None
    margin: float = 0.05
    scale: Scale = "ratio"
    looks: tuple[int, ...] = ()
    tuning: tuple[int, ...] = ()
    fraction: str | int | None = None
    levels: Mapping[str, tuple[Any, ...]] | None = None


def read_declared(metric_node: Setting | None, margin: Setting | None) -> Declared:
    """Read ``metric: recall`` and ``margin: 0.02``, or ``margin: 5 %``.

    Raises:
        ConfigError: for an unknown metric, and for a margin that the metric cannot have.
    """
    metric = None if metric_node is None else _metric(metric_node)
    if margin is None:
        ratio = metric is None or _scale(metric) == "ratio"
        return Declared(metric) if ratio else Declared(metric, 0.0, "difference")
    value = margin.value
    if isinstance(value, str) and (share := re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", value)):
        if metric is not None and _scale(metric) == "difference":
            raise margin.error(
                f"{metric} is compared by differences: write the margin as a number, such as 0.02"
            )
        if float(share[1]):
            return Declared(metric, float(share[1]) / 100)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e300:
        if metric is None:
            raise margin.error(
                f"{value:g} is a difference, and needs 'metric: NAME'. For a ratio, write "
                f"'margin: {100 * value:g} %'"
            )
        if _scale(metric) == "ratio":
            raise margin.error(f"{metric} is compared by ratios: write 'margin: {100 * value:g} %'")
        return Declared(metric, float(value), "difference")
    raise margin.error(f"should be a share such as 5 %, or a positive number, not {value!r:.80}")


def read_fraction(node: Setting | None) -> str | int | None:
    """Read ``fraction: main``, ``fraction: two-way``, a number of variants, or ``all`` (None).

    Raises:
        ConfigError: for anything else.
    """
    if node is None or node.value == "all":
        return None
    value = node.value
    if value in FRACTIONS or (type(value) is int and value > 0):
        return value  # type: ignore[no-any-return]
    raise node.error(f"should be {', '.join(FRACTIONS)} or a number of variants, not {value!r:.80}")


def _metric(node: Setting) -> str:
    labels = [x for row in METRICS.values() for x in (*row.labels, *(row.inception or ()))]
    if node.value not in labels:
        known = ", ".join(dict.fromkeys(labels))
        hint = nearest(str(node.value), labels)
        raise node.error(f"{node.value!r:.80} is not one of {known}.{hint}")
    return str(node.value)


def _scale(metric: str) -> Scale:
    row = labelled(metric)
    return row.scale if row else "difference"
