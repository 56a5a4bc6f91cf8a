"""The runs that a grid no longer has and that still run or wait, and how to cancel them."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from mpdit.study.status import RunStatus, survey, tally
from mpdit.study.studydir import StudyDir
from mpdit.text import Paint


def still_active(study: StudyDir, outside: Collection[str]) -> list[RunStatus]:
    """The runs outside the grid that run or wait."""
    found = survey(study, outside) if outside else []
    return [status for status in found if status.is_pending]


def active_lines(
    study: StudyDir,
    active: Sequence[RunStatus],
    outside: Collection[str],
    cancel: str,
    paint: Paint,
) -> Iterator[str]:
    """One line that counts the active runs outside the grid, and one with a command.

    Args:
        active: as `still_active` returns them.
        outside: all runs outside the grid.
        cancel: the command that cancels the study.
    """
    if active:
        yield paint(f"  no longer in the grid, but {tally(active)}; to cancel:", "yellow")
        patterns = _patterns(study, [status.name for status in active], set(outside))
        yield f"    {' '.join((cancel, *(f'--only {shlex.quote(word)}' for word in patterns)))}"


def _patterns(study: StudyDir, names: Sequence[str], outside: set[str]) -> list[str]:
    """The fewest names for ``--only``: a variant's where all its runs are outside the grid."""
    of_variant: dict[str, set[str]] = defaultdict(set)
    for entry in study.entries:
        for name in {entry["variant"], entry.get("named") or entry["variant"]}:
            of_variant[name].add(entry["name"])
    whole = {variant for variant, runs in of_variant.items() if runs <= outside}
    variants = {entry["name"]: entry["variant"] for entry in study.entries}
    short = (variants[name] if variants[name] in whole else name for name in names)
    return list(dict.fromkeys(short))
