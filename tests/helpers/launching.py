"""launch.py of any checkout in a process of its own, whose runs are the stand-in's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.helpers import ROOT, stand_in


def launch_of(checkout: Path, command: Sequence[str] = stand_in.COMMAND) -> str:
    """The program of a checkout's launch.py, whose runs are executed by a command."""
    return f"""\
import sys
sys.path.insert(0, {str(checkout)!r})
from mpdit.study import pool
pool.RUN_COMMAND = {tuple(command)!r}
import launch
launch.main()
"""


LAUNCH = launch_of(ROOT)


def make_checkout(folder: Path) -> Path:
    """A checkout of this code, in git, with one commit."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "launch.py", folder)
    shutil.copytree(ROOT / "mpdit", folder / "mpdit", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    """Commit everything, and return the commit."""
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    git(folder, "add", "--all")
    git(folder, *author, "commit", "--quiet", "--message=All")
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def set_version(checkout: Path, version: str) -> None:
    """Edit the package: runs of the stand-in note its version."""
    (checkout / "mpdit" / "__init__.py").write_text(f'__version__ = "{version}"\n')
