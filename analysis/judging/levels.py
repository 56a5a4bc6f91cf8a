"""The values of a grid's axes as factor levels: text in the grid's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def text(value: Any) -> str:
    """Return a value as text: ``0.01``, ``none``, ``0.9, 0.99``; a whole float as an integer."""
    if isinstance(value, tuple | list):
        return ", ".join(map(text, value))
    if value is None or value != value:
        return "none"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value)


def levels(column: pd.Series[Any], order: Sequence[Any] = ()) -> pd.Series[Any]:
    """Return an axis of the grid as a categorical: False before True, other values as text.

    The categories are in the given order; others follow in the order of the rows. The order is
    needed for a fraction of a grid, whose rows may begin with any level.
    """
    if set(map(type, column)) == {bool}:
        return column.astype(pd.CategoricalDtype([False, True]))
    texts = column.map(text)
    known = [name for name in map(text, order) if name in set(texts)]
    return texts.astype(pd.CategoricalDtype(list(dict.fromkeys([*known, *texts]))))


def positions(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a tuned axis for drawing: as numbers, or as text if a value is not a number."""
    if column.map(lambda value: type(value) in (int, float) and value == value).all():
        return column.astype(float)
    return column.map(text)
