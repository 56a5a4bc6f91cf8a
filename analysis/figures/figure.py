"""The decorator that makes a function a figure of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

from matplotlib.figure import Figure

from analysis.exhibits import Exhibit, Exhibits
from analysis.figures import panels, style
from analysis.study import Study

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class FigureExhibit(Exhibit[Figure]):
    """A figure."""

    def save(self, study: Study, stem: Path) -> tuple[str, str]:
        """Draw the figure and write it as `style.save` does.

        Returns:
            the SVG's text; the caption, with the number of drawn variants if not all are drawn.
        """
        with panels.drawn() as counts:
            figure = self(study)
        svg, (shown, there, what) = style.save(figure, stem), max(counts, default=(0, 0, ""))
        left = "" if shown == there else f" Drawn: {shown} of {there:,} {what}."
        return svg, f"{self.caption}{left}"


FIGURES = Exhibits("figure", FigureExhibit)


def figure(
    *, title: str, caption: str, place: int
) -> Callable[[Callable[P, Figure]], Callable[P, Figure]]:
    """Register a function ``Study`` → Figure, drawn in the common style (see `FigureExhibit`)."""
    fields = {"title": title, "caption": caption, "place": place}
    return lambda draw: FIGURES.register(style.styled(draw), **fields)
