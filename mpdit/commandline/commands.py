"""All commands, in the order of the help page; a command is found by its words."""

from __future__ import annotations

from collections.abc import Sequence

from mpdit.commandline import answerrows, datarows, runrows, studyrows
from mpdit.commandline.row import GROUPS, Command

ROWS = (*studyrows.ROWS, *answerrows.ROWS, *runrows.ROWS, *datarows.ROWS)
COMMANDS = {row.name: row for row in sorted(ROWS, key=lambda row: GROUPS.index(row.group))}
FAMILIES = frozenset(name.split()[0] for name in COMMANDS if " " in name)
"""First words of commands of two words: ``data``."""


def split(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command at the beginning of a line (None without one), and the words after it."""
    for length in (2, 1):
        if row := COMMANDS.get(" ".join(words[:length])):
            return row, list(words[length:])
    return None, list(words)


def first_words() -> list[str]:
    """The first words of all commands, each once."""
    return list(dict.fromkeys(name.split()[0] for name in COMMANDS))
