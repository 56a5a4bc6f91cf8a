"""The metric by which a study is judged, and the rules that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpdit.catalogue.measures import labelled
from mpdit.decisions.family import Rules


def kind(label: str) -> str | None:
    """``Fréchet`` or ``kernel``; None for a metric that is not a known distance."""
    row = labelled(label)
    return row.distance if row else None


def judge(counts: Mapping[str, int], better: Mapping[str, str], declared: str | None) -> str | None:
    """The label of the judging metric: of the declared metric, if there is one.

    Without a declaration it is a distance, else a metric whose better direction is known. Of
    several, the one that most runs have is taken; of equals, the first.

    Args:
        counts: label → the number of runs that have it, in the order of their appearance.
        better: label → ``lower`` or ``higher``, where this is known.
    Returns:
        None where no run has such a metric.
    """
    if declared:
        choices = [[label for label in counts if _is_of(label, declared)]]
    else:
        choices = [[label for label in counts if kind(label)]]
        choices += [
            [label for label in counts if better.get(label) == direction]
            for direction in ("lower", "higher")
        ]
    found = next(filter(None, choices), [])
    return max(found, key=counts.__getitem__, default=None)


def _is_of(label: str, declared: str) -> bool:
    """Whether a number is of the declared metric: FD and FID are one."""
    mine, theirs = labelled(label), labelled(declared)
    if mine is None or theirs is None or mine is not theirs:
        return False
    names = (mine.labels, mine.inception or mine.labels)
    first = label.split("@")[0].split("-")[0]
    return any({first, declared} <= {of[i] for of in names} for i in range(len(mine.labels)))


def rules(
    label: str, direction: str | None, is_positive: bool, declared: Mapping[str, Any]
) -> Rules:
    """The rules by which runs are compared by a metric.

    A quantity that is not always positive has no ratio. A margin of another scale than the
    metric's is ignored.

    Args:
        direction: which of two values is better, ``lower`` or ``higher``.
        is_positive: whether all values are.
        declared: the grid's declaration, as stored in study.json.
    """
    row = labelled(label)
    scale = row.scale if row and is_positive else "difference"
    asked = {"margin": 0.05, "scale": "ratio", **declared}
    return Rules(
        scale=scale,
        lower_is_better=direction != "higher",
        margin=float(asked["margin"]) if asked["scale"] == scale else 0.0,
        looks=tuple(asked.get("looks") or ()),
    )
