"""A row of the command line: a command's name, its description, and its function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpdit.commandline.parser import Options, Parser
from mpdit.errors import EXIT_DONE

STUDY = "Run a study"
STEER = "Follow and steer it"
ANSWERS = "Read its answers"
ONE_RUN = "Work with one run"
DATA = "Prepare data and models"
TOOL = "This program"
GROUPS = (STUDY, STEER, ANSWERS, ONE_RUN, DATA, TOOL)
"""The headings of the help page, in its order."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: one or two words, such as ``plan`` or ``data check``.
        group: its heading on the help page.
        operands: its operands on the help page.
        does: what it does, in one line; its own help page begins with it.
        function: ``module:function``, which gets each option as a keyword and returns an exit
            status, or None for success. The module is imported only to run the command.
        options: adds the options.
        about: further text of its own help page.
        stoppable: whether it keeps its state when a signal stops it. Signals are then recorded from
            the start, before torch is imported.
    """

    name: str
    group: str
    operands: str
    does: str
    function: str
    options: Callable[[Options], None]
    about: str = ""
    stoppable: bool = False

    def parser(self, prog: str) -> Parser:
        """The parser of its options; ``prog`` is how it was called."""
        sentence = f"{self.does[0].upper()}{self.does[1:]}."
        parser = Parser(prog, f"{sentence}\n\n{self.about}".rstrip())
        self.options(Options(parser))
        return parser

    def run(self, options: dict[str, Any]) -> int:
        """Import the command's module, and call its function.

        Returns:
            the exit status.
        """
        if self.stoppable:
            importlib.import_module("mpdit.runtime.signals").note()
        module, _, name = self.function.partition(":")
        status = getattr(importlib.import_module(module), name)(**options)
        sys.stdout.flush()
        return EXIT_DONE if status is None else int(status)
