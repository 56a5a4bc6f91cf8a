"""Commands on a study, as one would type them here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mpdit.study.studydir import StudyDir
from mpdit.text import shell_line

RESULTS = Path("results")


def command(name: str, study: StudyDir, only: Sequence[str] | None = None) -> str:
    """A command on a study, as one would type it here."""
    here = os.path.relpath(study.path)
    where = study.name if Path(here) == RESULTS / study.name else here
    return program(name, where, *(word for one in only or () for word in ("--only", one)))


def named(study: StudyDir, only: Sequence[str] | None) -> str:
    """A study's name, or those of its runs that were asked for."""
    return f"{study.name} ({', '.join(only)})" if only else study.name


def program(*words: str) -> str:
    """A command line of this program."""
    return shell_line("python", sys.argv[0], *words)
