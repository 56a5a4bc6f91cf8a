"""The decorator that makes a function a figure of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

from matplotlib.figure import Figure

from analysis.exhibits import Exhibit, Exhibits
from analysis.figures import style
from analysis.study import Study

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class FigureExhibit(Exhibit[Figure]):
    """A figure.

    Attributes:
        shows: how many variants it shows at most. None where it shows none by itself.
    """

    shows: int | None

    def save(self, study: Study, stem: Path) -> str:
        """Draw the figure and write it as `style.save` does. Returns the SVG's text."""
        return style.save(self(study), stem)

    def caption_for(self, study: Study) -> str:
        """The caption, and how many variants are shown where not all are."""
        count = len(study.variants)
        if self.shows is None or count <= self.shows:
            return self.caption
        return f"{self.caption} The baseline and the {self.shows - 1} best of {count} variants."


FIGURES = Exhibits("figure", FigureExhibit)


def figure(
    *, title: str, caption: str, place: int, shows: int | None = style.SHOWN
) -> Callable[[Callable[P, Figure]], Callable[P, Figure]]:
    """Register a function ``Study`` → Figure, drawn in the common style (see `FigureExhibit`)."""
    fields = {"title": title, "caption": caption, "place": place, "shows": shows}
    return lambda draw: FIGURES.register(style.styled(draw), **fields)
