"""What a grid declares of its decisions: the metric to compare by, and the margin that matters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpdit.catalogue import METRICS
from mpdit.catalogue.measures import Scale, labelled
from mpdit.errors import nearest
from mpdit.grid.settings import Setting


@dataclass(frozen=True)
class Declared:
    """As study.json has it.

    Attributes:
        metric: a metric's label without extractor and count; None: the distance most runs have.
        margin: the smallest change that matters: a share where ``scale`` is ratio (0.05), else a
            number in the metric's unit.
    """

    metric: str | None = None
    margin: float = 0.05
    scale: Scale = "ratio"


def read_declared(top: Setting) -> Declared:
    """``metric: recall`` and ``margin: 0.02``, or ``margin: 5 %``.

    Raises:
        ConfigError: for an unknown metric, and for a margin that the metric cannot have.
    """
    node = top.get("metric")
    metric = None if node is None else _metric(node)
    margin = top.get("margin")
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
