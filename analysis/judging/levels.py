"""The values of a grid's axes as levels: text in the grid's order."""

from __future__ import annotations

from typing import Any

import pandas as pd


def text(value: Any) -> str:
    """``0.01``, ``none``, ``0.9, 0.99``; a whole number that became a float is whole again."""
    if isinstance(value, tuple):
        return ", ".join(map(text, value))
    if value is None or value != value:
        return "none"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value)


def levels(column: pd.Series[Any]) -> pd.Series[Any]:
    """An axis of the grid as a categorical: False before True, other values as text.

    The categories are in the order of the rows, which is the grid's.
    """
    if set(map(type, column)) == {bool}:
        return column.astype(pd.CategoricalDtype([False, True]))
    texts = column.map(text)
    return texts.astype(pd.CategoricalDtype(list(dict.fromkeys(texts))))


def positions(column: pd.Series[Any]) -> pd.Series[Any]:
    """A tuned axis as it can be drawn: as numbers, or as text where a value is not a number."""
    if column.map(lambda value: type(value) in (int, float) and value == value).all():
        return column.astype(float)
    return column.map(text)
