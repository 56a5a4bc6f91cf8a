"""Completions of operands for a shell: names on disk, found without reading any file.

argcomplete passes the beginning of the word, and the options before it.
"""

from __future__ import annotations

import glob
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

MOST = 2_000
"""The most names that are offered: a results folder may have a hundred thousand runs."""


def studies(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
    """The names of the studies under ``--results``, and folders."""
    found = _results(parsed_args).glob(f"{glob.escape(prefix)}*/study.json")
    return [*(file.parent.name for file in found), *_paths(prefix)]


def runs(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
    """The names of all runs under ``--results``, and folders."""
    found = _results(parsed_args).glob(f"*/{glob.escape(prefix)}*/config.yaml")
    names = [file.parent.name for file, _ in zip(found, range(MOST), strict=False)]
    return [*names, *_paths(prefix)]


def grids(prefix: str, **_: object) -> list[str]:
    """Grid files, and the folders that may hold some."""
    return _paths(prefix, (".yaml", ".yml"))


def _results(options: Namespace) -> Path:
    return Path(getattr(options, "results", None) or "results")


def _paths(prefix: str, endings: tuple[str, ...] = ()) -> list[str]:
    """Folders, and files with these endings, whose path begins with ``prefix``."""
    found: Iterable[str] = glob.iglob(f"{glob.escape(prefix)}*")  # noqa: PTH207 - keeps './'
    return [
        f"{path}/" if Path(path).is_dir() else path
        for path in found
        if Path(path).is_dir() or path.endswith(endings or ("/",))
    ]
