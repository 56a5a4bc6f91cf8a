"""How to type a command of this program where the user is: for messages that name one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from mpdit.text import shell_line

LAUNCH = "launch.py"
SCRIPT = "mpdit"
"""The console script that pip installs."""


def typed(*words: object) -> str:
    """The line that runs a command of this program here: ``mpdit status quickstart``."""
    return shell_line(*program(), *words)


def program() -> tuple[str, ...]:
    """The words that start this program.

    They are the words that started this process. Where it was started as a module or imported, they
    are ``mpdit`` if a shell finds it, else the checkout's launch.py if it exists here.
    """
    started = Path(sys.argv[0])
    if started.name == SCRIPT:
        return (SCRIPT if _is_found(SCRIPT, started.parent) else str(started),)
    if started.name == LAUNCH:
        return (_python(), str(started))
    if _is_found(SCRIPT, Path(sys.executable).parent):
        return (SCRIPT,)
    if Path(LAUNCH).is_file() and Path("mpdit").is_dir():
        return (_python(), LAUNCH)
    return (_python(), "-m", "mpdit")


def called() -> str:
    """How the help and a message about a mistyped line name this program."""
    name = Path(sys.argv[0]).name
    return name if name in (SCRIPT, LAUNCH) else "python -m mpdit"


def _python() -> str:
    """This interpreter, as a shell finds it, or by its path."""
    own = Path(sys.executable)
    for name in ("python", "python3"):
        if _is_found(name, own.parent):
            return name
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _is_found(name: str, folder: Path) -> bool:
    """Whether a shell takes a program from this folder. Virtual environments share the file."""
    place = shutil.which(name)
    return place is not None and Path(place).parent.absolute() == folder.absolute()
