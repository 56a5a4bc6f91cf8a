"""``--only``: the runs whose names match shell patterns."""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from mpdit.disk.rundir import id_in
from mpdit.errors import ConfigError, nearest

Item = TypeVar("Item")
Names = Sequence[str | None]
"""The names of a run with and without its id, of its variant, and of the step or variant in it
(None without one)."""


def names_of(run: str, variant: str, named: str | None) -> Names:
    """The names by which ``--only`` selects a run."""
    return run, run.removesuffix(f"-{id_in(run) or ''}"), variant, named


def select(items: Iterable[tuple[Item, Names]], patterns: Sequence[str], study: str) -> list[Item]:
    """The items with a name that matches one of the patterns, in their order.

    Raises:
        ConfigError: for a pattern that matches no name, with the nearest one.
    """
    every = list(items)
    known: dict[str, list[int]] = defaultdict(list)
    for index, (_, names) in enumerate(every):
        for name in filter(None, names):
            known[name].append(index)
    found: set[int] = set()
    for pattern in patterns:
        if pattern in known:  # a whole name; fast for thousands of names
            hits = [pattern]
        else:
            hits = list(filter(re.compile(fnmatch.translate(pattern)).match, known))
        if not hits:
            raise ConfigError(
                f"--only {pattern!r} matches none of the {len(every):,} runs of {study}."
                f"{nearest(pattern, known)}"
            )
        found.update(*(known[name] for name in hits))
    return [every[index][0] for index in sorted(found)]
