"""The decorator that makes a function a table of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from analysis.exhibits import Exhibit, Exhibits
from analysis.study import Study
from analysis.tables import cells

Make = TypeVar("Make", bound=Callable[[Study], pd.DataFrame])


@dataclass(frozen=True, kw_only=True)
class TableExhibit(Exhibit[pd.DataFrame]):
    """A table.

    Attributes:
        text: a function: the table of numbers → the table as text.
    """

    text: Callable[[pd.DataFrame], pd.DataFrame]

    def save(self, study: Study, stem: Path) -> pd.DataFrame:
        """Make the table, write it with `cells.save`, and return its text."""
        numbers = self(study)
        text = self.text(numbers)
        cells.save(numbers, text, stem, self.caption)
        return text


TABLES = Exhibits("table", TableExhibit)


def table(
    *, title: str, caption: str, text: Callable[[pd.DataFrame], pd.DataFrame], place: int
) -> Callable[[Make], Make]:
    """Register a function ``Study`` → tidy DataFrame of numbers (see `TableExhibit`)."""
    return lambda make: TABLES.register(make, title=title, caption=caption, text=text, place=place)
