"""The result tables in a terminal of 80 columns."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.figures import style
from analysis.judging import conclusions, plans, words
from analysis.study import NothingToShow, Study
from analysis.tables import TABLES

COMPARING = ("ladder", "modulation", "others")
HEADINGS = {
    "variant": "variant",
    "seeds": "n",
    "change": "change",
    "parameters": "params",
    "train time": "train\ntime",
}


def show(study: Study, console: Console | None = None) -> None:
    """Print each comparing table that has rows, what is concluded, and what is missing."""
    console = console or Console()
    for kind in map(TABLES.__getitem__, COMPARING):
        try:
            text = kind.text(kind(study))
        except NothingToShow:
            continue
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        chosen = [c for c in text.columns if c in HEADINGS or c == text.columns[1]]
        text["variant"] = text["variant"].map(lambda name: style.wrap(name, 17))
        for column in chosen:
            name = column == "variant"
            heading = HEADINGS.get(column, column.replace("@", "\n@"))
            table.add_column(Text(heading), justify="left" if name else "right", overflow="fold")
        for row in text[chosen].itertuples(index=False, name=None):
            table.add_row(*map(Text, row))
        console.print(table, Text())
    for line in conclusions.statements(study):
        console.print(Text(line))
    for line in _next(study):
        console.print(Text(f"next: {line}"))
    for line in filter(None, (*words.warnings(study), words.explanation(study))):
        console.print(Text(line))
    if len(study.missing):
        console.print(Text(f"missing: {len(study.missing)} (named in the report)"))


def _next(study: Study) -> list[str]:
    """What would settle the open comparisons; nothing where all are settled."""
    try:
        return plans.lines(study)
    except NothingToShow:
        return []
