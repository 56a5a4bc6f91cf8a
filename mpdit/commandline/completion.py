"""Completion in a shell, by argcomplete, which calls the program for every TAB."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mpdit.commandline.commands import COMMANDS, FAMILIES
from mpdit.commandline.parser import Options, Parser
from mpdit.invocation import LAUNCH, SCRIPT


def print_script(shell: str) -> None:
    """Print the code that makes a shell complete ``mpdit`` and ``./launch.py``."""
    from argcomplete.shell_integration import shellcode

    print(shellcode([SCRIPT, LAUNCH], shell=shell))


def complete() -> None:
    """Write the completions for the shell, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser_of(os.environ.get("COMP_LINE", "").split()))


def parser_of(line: Sequence[str]) -> Parser:
    """A parser with all commands, and the options of those that match the line."""
    parser = Parser(SCRIPT)
    commands = parser.add_subparsers(metavar="COMMAND")
    families = {name: commands.add_parser(name).add_subparsers() for name in sorted(FAMILIES)}
    for name, row in COMMANDS.items():
        *family, last = name.split()
        made = (families[family[0]] if family else commands).add_parser(last, help=row.does)
        if last in line:
            row.options(Options(made))
    return parser
