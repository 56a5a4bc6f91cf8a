"""Commands on a study, as one would type them here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mpdit.invocation import typed
from mpdit.study.studydir import StudyDir

RESULTS = Path("results")


def command(name: str, study: StudyDir, only: Sequence[str] | None = None) -> str:
    """A command on a study, as one would type it here."""
    return typed(name, place(study), *(word for one in only or () for word in ("--only", one)))


def resubmit(study: StudyDir, sets: Sequence[str]) -> str:
    """The command that submits a study again, with the texts of its ``--set``."""
    results = Path(os.path.relpath(study.path.parent))
    words = [word for text in sets for word in ("--set", text)]
    words += [] if results == RESULTS else ["--results", str(results)]
    return typed("submit", study.grid_name, *words)


def place(study: StudyDir) -> str:
    """How a command names a study here: by its name, or by its folder."""
    here = os.path.relpath(study.path)
    return study.name if Path(here) == RESULTS / study.name else here


def named(study: StudyDir, only: Sequence[str] | None) -> str:
    """A study's name, with the patterns of ``--only`` if there are any."""
    return f"{study.name} ({', '.join(only)})" if only else study.name
