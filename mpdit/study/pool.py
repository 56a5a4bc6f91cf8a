"""Start the local pool (`mpdit.study.poolprocess`) as a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mpdit.study import codesnapshot
from mpdit.study.runprocess import cores, find_gpus, spawn

RUN_COMMAND = (sys.executable, "-m", "mpdit.run")


def default_parallel() -> int:
    """The number of runs at once: one a GPU, or one a core where there is no GPU."""
    return len(find_gpus()) or cores()


def start_pool(
    claim: Path, held: Any, log: Path, code: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a pool in its own session; it inherits ``held``, the lock on its claim.

    Args:
        code: the folder that it imports mpdit from; None for the installed package.
    """
    command = [sys.executable, "-m", "mpdit.study.poolprocess", str(claim)]
    env = {**os.environ, **codesnapshot.environment(code)}
    return spawn(command, log, env=env, start_new_session=True, pass_fds=[held.fileno()])
