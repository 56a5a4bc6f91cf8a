"""Tables as text: numbers for readers, Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.judging.numerals import DASH as DASH
from analysis.judging.numerals import change, minus, probability
from analysis.judging.statistics import Estimate
from mpdit.disk.files import write_atomic
from mpdit.text import duration, printable


def decimals(values: Iterable[float], significant: int = 4) -> int:
    """Return the decimals that show a typical value with ``significant`` digits; at most eight.

    The median size counts, so that one value near zero does not add digits to all others.
    """
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes:
        return 2
    return min(8, max(0, significant - 1 - math.floor(math.log10(float(np.median(sizes))))))


ARROWS = {"lower": " ↓", "higher": " ↑"}
Numbers = Mapping[Any, Any]
"""A row of a table of numbers, by column."""
Names = tuple[str, str, str]
RELATIVE: Names = ("relative", "relative_low", "relative_high")
"""The columns of a value and the bounds of its interval."""


def bounds(found: Estimate, names: Names) -> dict[str, float]:
    """Return a value and the bounds of its interval as columns."""
    return dict(zip(names, (found.value, found.low, found.high), strict=True))


def averaged(
    found: Estimate, names: Sequence[str] = ("mean", "half_width", "seeds")
) -> dict[str, float]:
    """Return a mean over seeds, the half width of its interval, and the seeds as columns."""
    return dict(zip(names, (found.value, found.half_width, found.n), strict=False))


def number(value: float | None, places: int, half_width: float = math.nan) -> str:
    """Return ``31.00``, or with the half width of its interval ``31.00 ± 12.71``."""
    if value is None or math.isnan(value):
        return DASH
    spread = "" if math.isnan(half_width) else f" ± {half_width:.{places}f}"
    return minus(f"{value:.{places}f}{spread}")


def relative(row: Numbers) -> str:
    """Return ``−26.2 [−35.2, +10.3]``, in %, from the columns `RELATIVE`."""
    value, low, high = (100 * row[name] for name in RELATIVE)
    if math.isnan(value):
        return DASH
    bounded = math.isfinite(low) and math.isfinite(high)
    interval = f" [{low:+.1f}, {high:+.1f}]" if bounded else ""
    return minus(f"{value:+.1f}{interval}")


def percent(fraction: float) -> str:
    """``−12.8``"""
    return DASH if math.isnan(fraction) else minus(f"{100 * fraction:+.1f}")


def count(value: float | None) -> str:
    """``7,608,871``"""
    return DASH if value is None or math.isnan(value) else f"{int(value):,}"


def elapsed(seconds: float | None) -> str:
    """``3 min 20 s`` (`mpdit.text.duration`)"""
    return DASH if seconds is None or math.isnan(seconds) else duration(seconds)


def cell(row: Numbers, column: str, places: int) -> str:
    """Return a value as text, in the form of its column; a distance with ``places`` decimals."""
    match column:
        case "mean":
            return number(row["mean"], places, row["half_width"])
        case "limit":
            return number(row["limit"], places, row["limit_half"])
        case "effect":
            return change(row["effect"], row["low"], row["high"], row["scale"])
        case "relative":
            return relative(row)
        case "distance" | "published_distance":
            return number(row[column], 2)
        case "published_relative":
            return percent(row[column])
        case "p":
            return probability(row[column])
        case "parameters" | "published_parameters":
            return count(row[column])
        case "train_seconds":
            return elapsed(row[column])
        case _:
            return str(row[column])


def printer(
    columns: Mapping[str, str | Callable[[Numbers], str]], maybe: Iterable[str] = ()
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a function that prints a table of numbers as text.

    Args:
        columns: heading → the table's column (see `cell`), or a function row → text. ``{metric}``
            in a heading is the table's metric, ``{arrow}`` its better direction.
        maybe: headings that are left out if their column is empty.
    """

    def text(table: pd.DataFrame) -> pd.DataFrame:
        rows, metric = table.to_dict("records"), next(iter(table.get("metric", ())), "")
        arrow = ARROWS.get(next(iter(table.get("better", ())), ""), "")
        places = decimals(table.get("mean", ()))
        found = {
            heading.replace("{metric}", metric).replace("{arrow}", arrow): [
                cell(row, of, places) if isinstance(of, str) else of(row) for row in rows
            ]
            for heading, of in columns.items()
        }
        absent = {name.replace("{metric}", metric) for name in maybe}
        return pd.DataFrame(
            {
                name: cells
                for name, cells in found.items()
                if name not in absent or {*cells} != {DASH}
            }
        )

    return text


_MARKDOWN = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|\](?=\()")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""The characters that begin a formula in a spreadsheet."""


def plain(cell: object) -> str:
    """Return a cell's text on one printable line."""
    return printable(" ".join(str(cell).split()))


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV. Text that a spreadsheet would execute gets an apostrophe."""

    def safe(cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        text = printable(cell)
        return f"'{text}" if cell.startswith(_FORMULA) and not _is_number(cell) else text

    named = table.rename(columns=safe)
    texts = named.select_dtypes(exclude=["number", "bool"])
    for name in texts:
        named[name] = texts[name].astype(object).map(safe)
    return str(named.to_csv(index=False))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def markdown(text: pd.DataFrame) -> str:
    """Return a table of text as Markdown."""
    safe = text.rename(columns=_in_markdown).map(_in_markdown)
    sides = {"l": "left", "r": "right"}
    aligned = [sides[side] for side in alignment(text)]
    return str(safe.to_markdown(index=False, disable_numparse=True, colalign=aligned)) + "\n"


def _in_markdown(cell: object) -> str:
    return _MARKDOWN.sub(lambda found: "\\" + found[0], plain(cell))


def alignment(text: pd.DataFrame) -> str:
    """Return one letter per column: ``l`` for names, ``r`` for numbers."""
    is_number = text.apply(lambda cells: cells.str.match(r"[<>+−]? ?\d").any())
    return "l" + "".join("r" if number else "l" for number in is_number[1:])


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": r"$-$", "Δ": r"$\Delta$", "↓": r"$\downarrow$", "×": r"$\times$",
    "↑": r"$\uparrow$", "→": r"$\to$", "∞": r"$\infty$", "–": "--",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex(text: pd.DataFrame) -> str:
    r"""Return a table of text as LaTeX; it needs ``\usepackage{booktabs}``."""

    def row(cells: Iterable[object]) -> str:
        escaped = ("".join(_LATEX.get(letter, letter) for letter in plain(cell)) for cell in cells)
        # a bracket at the start of a row would be an option of the row before it
        return " & ".join(f"{{{cell}}}" if cell.startswith("[") else cell for cell in escaped)

    lines = [
        rf"\begin{{tabular}}{{{alignment(text)}}}",
        r"\toprule",
        rf"{row(text.columns)} \\",
        r"\midrule",
        *(rf"{row(cells)} \\" for cells in text.itertuples(index=False, name=None)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def save(table: pd.DataFrame, text: pd.DataFrame, stem: Path, caption: str = "") -> None:
    """Write a table as ``stem.md``, ``stem.tex``, and ``stem.csv`` with full precision.

    Args:
        table: the numbers, for the CSV.
        text: the same as text (an exhibit's ``text(table)``), for Markdown and LaTeX.
        stem: the files' path without suffix.
        caption: what a reader needs to know, for a comment in the LaTeX.
    """
    comment = "".join(f"% {line}\n" for line in textwrap.wrap(caption, 96))
    write_atomic(stem.with_name(f"{stem.name}.md"), markdown(text))
    write_atomic(stem.with_name(f"{stem.name}.tex"), f"{comment}{latex(text)}")
    write_atomic(stem.with_name(f"{stem.name}.csv"), csv(table))
