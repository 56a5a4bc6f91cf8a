"""The result tables in a terminal of 80 columns."""

from __future__ import annotations

from typing import get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.figures import style
from analysis.judging import conclusions, plans, words
from analysis.study import NothingToShow, Study
from analysis.tables import TABLES
from mpdit.decisions.family import Verdict
from mpdit.text import count, shell_line

COMPARING = ("ladder", "modulation", "others")
HEADINGS = {
    "variant": "variant",
    "seeds": "n",
    "change": "change",
    "parameters": "params",
    "train time": "train\ntime",
}


def show(study: Study, console: Console | None = None) -> None:
    """Print the comparing tables that have rows, what is concluded, and what would settle more."""
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
    if explanation := words.explanation(study):
        console.print(Text(explanation, style="dim"), Text())
    for line in words.warnings(study):
        console.print(Text(line, style="yellow"))
    for line in conclusions.statements(study):
        said = Text(line)
        said.highlight_words(get_args(Verdict), "bold")
        console.print(said)
    for line in _next(study):
        console.print(Text(line))
    if len(study.missing):
        console.print(Text(f"missing: {len(study.missing)} (named in the report)"))


def _next(study: Study) -> list[str]:
    """What settles the cheapest open comparison, and where to read of the others."""
    try:
        cheapest, *others = plans.lines(study) or [""]
    except NothingToShow:
        return []
    if not cheapest:
        return []
    what = count(len(others), "other open comparison")
    more = f"next: {what}: {shell_line('python', '-m', 'analysis', 'next', study.path)}"
    return [f"next: {cheapest}", *([more] if others else [])]
