"""``held.txt`` in a study's folder: the runs that do not start until they are released.

It has one name a line, and is written under the study's lock. A pool reads it before every start.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mpdit.disk import links
from mpdit.disk.files import warn_once, write_atomic

NAME = "held.txt"


def read_held(study: Path) -> frozenset[str]:
    """The names of the runs that are held; none, with a warning, where the file cannot be read."""
    file = study / NAME
    try:
        return frozenset(file.read_text(errors="replace").split())
    except FileNotFoundError:
        return frozenset()
    except PermissionError as error:  # another user's
        warn_once(f"{file} cannot be read ({error.strerror}); no run counts as held")
        return frozenset()


def write_held(study: Path, runs: Collection[str]) -> None:
    """Replace the names of the runs that are held."""
    if runs:
        write_atomic(study / NAME, "".join(f"{name}\n" for name in sorted(runs)))
    else:
        links.check(study / NAME)
        (study / NAME).unlink(missing_ok=True)
