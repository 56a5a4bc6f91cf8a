"""``python -m mpdit.catalogue [EXTENSION …]``: every table as Markdown (docs/catalogue.md)."""

import sys
from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from mpdit import extensions
from mpdit.catalogue import TABLES
from mpdit.errors import command

HEAD = """\
# What a grid can name

Made by `python -m mpdit.catalogue`, from the rows of the package; [adding.md](adding.md) adds one.
"""
COLUMNS = {
    "name": "name",
    "code": "in run names",
    "labels": "labels",
    "does": "what it does",
    "needs": "needs",
    "source": "source",
}
"""A row's field → its heading; a table has the columns of the fields that its rows have."""


def page() -> str:
    """The tables, one after the other."""
    parts = [HEAD]
    for table in TABLES.values():
        rows = [
            {head: _text(getattr(row, key)) for key, head in COLUMNS.items() if hasattr(row, key)}
            for row in table.values()
        ]
        note = f" ({table.note})" if table.note else ""
        title = f"## {table.kind.capitalize()}s\n\nKey: `{table.key}`{note}"
        parts.append(f"{title}\n\n{tabulate(rows, 'keys', 'github')}\n")
    return "\n".join(parts)


def _text(value: str | Iterable[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


@command
def main() -> int:
    for file in sys.argv[1:]:
        extensions.load(Path(file))
    print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
