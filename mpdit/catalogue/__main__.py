"""``python -m mpdit.catalogue [EXTENSION …]``: every table as Markdown (docs/catalogue.md)."""

import sys
from pathlib import Path

from tabulate import tabulate

from mpdit import extensions
from mpdit.catalogue import MODES, TABLES
from mpdit.errors import command

HEAD = """\
# What a grid can name

Made by `python -m mpdit.catalogue`, from the rows of the package; [adding.md](adding.md) adds one.
"""
KEYS = {
    "flags": "model: each by its own name, bare in a grid",
    "parts": f"model.conditioning: parts joined by +, or a mode ({', '.join(MODES)})",
    "datasets": "data.name",
    "metrics": "evaluate.metrics",
    "solvers": "sample.solver",
    "objectives": "train.objective",
    "extractors": "evaluate.extractor",
}


def page() -> str:
    """The tables, one after the other."""
    parts = [HEAD]
    for kind, table in TABLES.items():
        shown = {"name": "name", "code": "in run names", "labels": "labels", "does": "what it does"}
        rows = []
        for row in table.values():
            cells = {title: getattr(row, key) for key, title in shown.items() if hasattr(row, key)}
            cells = {t: ", ".join(v) if isinstance(v, tuple) else v for t, v in cells.items()}
            needs = ", ".join(getattr(row, "needs", ()))
            rows.append(
                {**cells, **({"needs": needs} if kind == "flags" else {}), "source": row.source}
            )
        title = f"## {table.kind.capitalize()}s\n\nKey: `{KEYS[kind].partition(':')[0]}`"
        note = KEYS[kind].partition(": ")[2]
        parts.append(
            f"{title}{f' ({note})' if note else ''}\n\n{tabulate(rows, 'keys', 'github')}\n"
        )
    return "\n".join(parts)


@command
def main() -> int:
    for file in sys.argv[1:]:
        extensions.load(Path(file))
    print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
