"""Runs forked from a process that has imported torch already.

Importing torch takes seconds of CPU time, a tenth of a small run; a pool's runs share one import.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from mpdit.disk import links
from mpdit.study import codesnapshot

MODULE = "mpdit.run"


class Preloaded:
    """Starts processes of ``python -m mpdit.run``, forked from one that has imported it."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([MODULE])

    def is_available(self) -> bool:
        """Whether that process runs or can be started: the path of its socket may be too long."""
        try:
            forkserver.ensure_running()
        except OSError:
            return False
        return True

    def start(self, words: Sequence[str], log: Path, env: Mapping[str, str]) -> Forked:
        """Start ``python -m mpdit.run WORDS`` with its output in ``log`` and these variables.

        Raises:
            ConfigError: when the log is a link (`mpdit.disk.links`).
            OSError: when the log cannot be opened.
        """
        links.check(log)
        log.open("ab").close()  # an error is raised in this process
        process = self.context.Process(target=_execute, args=(list(words), str(log), dict(env)))
        process.start()
        return Forked(process)


class Forked:
    """A forked process, with as much of `subprocess.Popen` as a pool needs."""

    def __init__(self, process: ForkServerProcess) -> None:
        self.process = process

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.process.terminate()


def serves(run: Path) -> bool:
    """Whether this process imports mpdit from the snapshot of a run's code.

    Live code may be edited between two runs, and is imported anew by each.
    """
    code = codesnapshot.read(run)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]
    return codesnapshot.is_snapshot(code) and str(codesnapshot.place_of(run.parent, code)) == own


def _execute(words: list[str], log: str, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, standard in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, standard)
    sys.argv = [MODULE, *words]
    warnings.filterwarnings("ignore", module="runpy")  # that mpdit.run is imported
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
