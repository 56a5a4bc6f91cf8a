"""The style of all figures: typeface, colours, sizes, and the look of each variant."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mpdit.disk.files import write_atomic

COLUMN = 3.4
"""Inches: the width of one column of a two-column paper."""
PAPER, INK = "#ffffff", "#262626"
"""Colours of background, and of text and axes. The report replaces both, for dark mode."""

PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#56b4e9", "#949494", "#8c5a2b")
"""seaborn's colour-blind palette without its two pale colours; the last is darkened."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[Any, ...] = ("", (4, 1.5), (1, 1.2), (4, 1, 1, 1))
SHOWN = len(PALETTE) * 2
"""The most variants that a reader can tell apart in a figure of lines or samples."""

RC: Any = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib: the same on every machine
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 7),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 6.5),
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), PAPER),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.minor.width", "ytick.minor.width"), 0.4),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    **dict.fromkeys(("xtick.minor.size", "ytick.minor.size"), 1.5),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.alpha": 0.12,
    "grid.linewidth": 0.5,
    "axes.titley": 1.0,  # matplotlib would search for a free place at each drawing
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "text.parse_math": False,  # a variant's name is not mathematics
    "figure.dpi": 200,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # journals refuse Type 3
    "svg.hashsalt": "mpdit",  # the same figure, the same bytes
}

METADATA: Any = {"pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None}}
"""Metadata without dates, so that the same figure gives the same bytes."""

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run ``draw`` with this style, and restore matplotlib's settings afterwards."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(RC)
            return draw(*args, **kwargs)

    return wrapper


@dataclass(frozen=True)
class Look:
    """How one variant is drawn."""

    color: str
    marker: str
    dashes: Any

    def handle(self, label: str) -> Line2D:
        """Return the line for a legend."""
        line = Line2D([], [], color=self.color, marker=self.marker, label=label)
        if self.dashes:
            line.set_dashes(self.dashes)
        return line


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """Return variant → look. After all colours are used, they repeat with other dashes."""
    n = len(PALETTE)
    return {
        variant: Look(PALETTE[i % n], MARKERS[i % n], DASHES[i // n % len(DASHES)])
        for i, variant in enumerate(variants)
    }


def wrap(name: str, width: int = 18) -> str:
    """Break a long name into lines after its separators; existing line breaks are kept."""
    return "\n".join(_wrap(line, width) for line in name.split("\n"))


def _wrap(name: str, width: int) -> str:
    lines = [""]
    for piece in re.findall(r"[^-_+=, ]*[-_+=, ]*", name):
        while len(piece) > width:
            lines.append(piece[:width])
            piece = piece[width:]
        if len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines if line.strip())


@styled
def save(figure: Figure, stem: Path) -> str:
    """Write the figure as PDF, SVG and PNG (300 dpi) with reproducible bytes; return the SVG."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_label_text():
                axis.set_label_coords(0, 0)  # matplotlib would place it beside the ticks each time
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")  # laid out once, not once a format
    printers: dict[
        str, Callable[..., Any]
    ] = {  # Figure.savefig draws twice a format: once more to lay out
        "pdf": FigureCanvasPdf(figure).print_pdf,
        "png": FigureCanvasAgg(figure).print_png,
        "svg": FigureCanvasSVG(figure).print_svg,
    }
    files = {}
    for kind, print_to in printers.items():
        buffer = BytesIO()
        figure.set_dpi(RC["savefig.dpi"])  # the printers leave their own
        print_to(buffer, metadata=METADATA[kind])
        files[kind] = buffer.getvalue()
        write_atomic(stem.with_name(f"{stem.name}.{kind}"), files[kind])
    return files["svg"].decode()
