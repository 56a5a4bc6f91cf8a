"""The rule on symbolic links: nothing is written or deleted through a link inside a study or run.

A link in somebody else's folder could lead anywhere. The folder of the study or run itself may be a
link, and so may the folders above it: people link scratch space.
"""

from __future__ import annotations

from pathlib import Path

from mpdit.errors import ConfigError

_guarded: set[Path] = set()  # folders as they were named; paths written below begin with them


def guard(folder: Path) -> None:
    """Apply the rule to everything below ``folder``."""
    _guarded.add(folder)


def check(path: Path) -> None:
    """Check a path before something is written to it, or deleted.

    Raises:
        ConfigError: naming the link, when the path or a folder that it lies in is one.
    """
    chain = (path, *path.parents)
    depth = max((i for i, folder in enumerate(chain) if folder in _guarded), default=0)
    for part in reversed(chain[:depth]):
        if part.is_symlink():
            raise ConfigError(
                f"{part} is a symbolic link: nothing inside a study is written or deleted through "
                f"one. Replace it by what it points to ({part.readlink()}), or delete it."
            )
