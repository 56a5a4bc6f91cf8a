"""The door of the command line: from words to an exit status."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mpdit.commandline.commands import COMMANDS, FAMILIES, first_words, split
from mpdit.commandline.helppage import page
from mpdit.commandline.row import Command
from mpdit.errors import EXIT_SIGINT, EXIT_USAGE, ConfigError, command, nearest
from mpdit.invocation import called

HELP = ("-h", "--help", "help")


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command of a line (by default, that of this process), and end the process.

    A user's mistake is one line and exit status 2. ``GRID`` alone means ``submit GRID``.
    """
    gc.set_threshold(200_000, 20, 20)  # ten thousand runs are many objects and little garbage
    given = list(sys.argv[1:] if words is None else words)
    if "_ARGCOMPLETE" in os.environ:
        from mpdit.commandline.completion import complete

        complete()
    sys.exit(_main(given))


@command
def _main(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        from mpdit import __version__

        print(f"mpdit {__version__}")
        return 0
    return _run(words if split(words)[0] else _with_submit(words), called())


@command
def door(words: Sequence[str], module: str, family: str = "", group: str = "") -> int:
    """Run a command as ``python -m MODULE``.

    Args:
        words: the command and its options.
        family: the first word of the command, which the module's name replaces.
        group: the group of commands that its help lists; '' for all.

    Returns:
        the exit status.
    """
    return _run([*family.split(), *words], f"python -m {module}", family, group)


def _run(words: Sequence[str], program: str, family: str = "", group: str = "") -> int:
    """Parse a line and run its command.

    Args:
        program: how the user called the program; with a ``family``, in place of the first word.
    """
    row, rest = split(words)
    if row is None:
        return _no_command(words, program, family, group)
    name = row.name.removeprefix(family).strip()
    options = row.parser(f"{program} {name}".strip()).parse_args(rest)
    try:
        return row.run(vars(options))
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except Exception:
        from mpdit.extensions import blamed  # here: a help page need not wait for pydantic

        with blamed():
            raise


def _no_command(words: Sequence[str], program: str, family: str, group: str) -> int:
    """Print the help page, or raise an error that names the nearest command."""
    here = words[:1] if words[:1] and words[0] in FAMILIES else []
    shown = [
        name
        for name, row in COMMANDS.items()
        if name.split()[: len(here)] == list(here) and group in ("", row.group)
    ]
    first = next(iter(words[len(here) :]), "")
    if first in ("", *HELP):
        print(page(program, _named(shown, family)))
        return EXIT_USAGE if first == "" else 0
    known = [name.split()[-1] for name in shown] if here else first_words()
    what = "option" if first.startswith("-") else "command"
    line = " ".join((program, *([] if family else here), "--help"))
    raise ConfigError(f"unknown {what} {first!r:.80}.{nearest(first, known)} (see {line})")


def _named(names: Sequence[str], family: str) -> dict[str, Command]:
    """The commands by name, without the family's word."""
    return {name.removeprefix(family).strip(): COMMANDS[name] for name in names}


def _with_submit(words: list[str]) -> list[str]:
    """Insert ``submit`` where a line has a grid and no command."""
    first = next(iter(words), "-")
    if first.startswith("-"):
        is_grid = not set(first_words()) & set(words) and any(map(_is_yaml, words))
    else:
        is_grid = first not in FAMILIES and (_is_yaml(first) or Path(first).is_file())
    return ["submit", *words] if is_grid else words


def _is_yaml(word: str) -> bool:
    return word.endswith((".yaml", ".yml"))
