"""Print the result tables in a terminal of 80 columns."""

from __future__ import annotations

from typing import get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.figures import style
from analysis.judging import answers, conclusions, plans, words
from analysis.study import NothingToShow, Study
from analysis.tables import TABLES
from mpdit.decisions.family import Verdict
from mpdit.invocation import typed
from mpdit.text import count

COMPARING = ("ladder", "modulation", "others")
HEADINGS = {
    "variant": "variant",
    "seeds": "n",
    "change": "change",
    "parameters": "params",
    "train time": "train\ntime",
}


def show(study: Study, console: Console | None = None) -> None:
    """Print the comparing tables with rows, the conclusions, and what would settle more.

    A crossed grid has no comparing tables, because its comparisons are effects of factors.
    """
    console = console or Console()
    kinds = () if answers.is_crossed(study) else COMPARING
    for kind in map(TABLES.__getitem__, kinds):
        try:
            text = kind.text(kind(study))
        except NothingToShow:
            continue
        table = Table(
            box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
            title=Text(kind.title, style="bold"), title_justify="left",
            caption=Text("± is half the width of a 95 % t interval"), caption_justify="left",
        )  # fmt: skip
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
    """Return what settles the cheapest open comparison, and the command that lists the others."""
    try:
        steps, open_ = plans.steps(study), len(plans.plans(study))
    except NothingToShow:
        return []
    if not steps:
        return []
    what = count(open_ - 1, "other open comparison")
    where = "see the report" if study.is_joined else typed("next", study.path)
    return [f"next: {steps[0]}", *([f"next: {what}: {where}"] if open_ > 1 else [])]
