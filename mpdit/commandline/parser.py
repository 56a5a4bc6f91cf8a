"""Parse a command's options, and report a mistake in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mpdit.errors import EXIT_USAGE, nearest
from mpdit.text import one_line


class Parser(argparse.ArgumentParser):
    """argparse's parser with exact option names, the nearest name for a typo, one-line errors.

    Args:
        prog: how the command was called.
        about: the text of the help page.
    """

    def __init__(self, prog: str, about: str = "", **options: Any) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        options = {"formatter_class": layout, "allow_abbrev": False, **options}
        super().__init__(prog=prog, description=about, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words into options.

        Raises:
            SystemExit: with status 2, after one line that names the mistake.
        """
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            known = [name for action in self._actions for name in action.option_strings]
            hint = nearest(word, known) if word.startswith("-") else ""
            self.error(f"unexpected {word!r}.{hint}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print one line, and end with status 2."""
        said = one_line(message.removeprefix("argument "), 1000)
        print(f"error: {said} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(EXIT_USAGE)


class Options:
    """Adds a command's arguments to its parser; some methods add arguments that commands share."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser

    def add(
        self,
        *names: str,
        complete: Callable[..., Sequence[str]] | None = None,
        **options: Any,
    ) -> None:
        """Add one argument, as argparse does.

        Args:
            complete: returns the completions of a word that has been begun in a shell.
        """
        action = self.parser.add_argument(*names, **options)
        if complete is not None:
            action.completer = complete  # type: ignore[attr-defined]  # argcomplete looks there

    def flag(self, name: str, help: str, **options: Any) -> None:
        """Add an option that is on when it is given."""
        self.add(name, action="store_true", help=help, **options)

    def several(self, name: str, metavar: str, help: str, **options: Any) -> None:
        """Add an option that can be repeated."""
        self.add(name, action="append", default=[], metavar=metavar, help=help, **options)

    def results(self) -> None:
        """Add ``--results``."""
        text = "the folder of all studies (default: %(default)s)"
        self.add("--results", type=Path, default=Path("results"), metavar="DIR", help=text)


def at_least(least: int) -> Callable[[str], int]:
    """A whole number of at least ``least``, as the type of an argument."""

    def parse(word: str) -> int:
        if not word.isascii() or not word.lstrip("-").isdigit() or int(word) < least:
            text = f"{word!r:.80} is not a whole number of at least {least}"
            raise argparse.ArgumentTypeError(text)
        return int(word)

    return parse
