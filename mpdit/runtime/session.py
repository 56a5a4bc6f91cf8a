"""The reports of a run while it works, and requests to stop it.

Lines go to log.txt, a heartbeat to state.json, a bar to the terminal when a person watches.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property

from rich.console import Console
from rich.logging import RichHandler

from mpdit.disk import links
from mpdit.disk.identity import Identity
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import explain_os_error
from mpdit.progress import Progress
from mpdit.runtime import signals
from mpdit.text import printable, terminal

HEARTBEAT_S = 2.0
TIME = "%Y-%m-%d %H:%M:%S"

log = logging.getLogger("mpdit")


class Interrupted(Exception):
    """A signal (its number) asked the run to stop, and its state has been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


class Session:
    """One process's work on one run.

    Args:
        main: whether this process reports; the run's other processes only listen to signals.
        recorded: whether the run's state.json is written.
        watched: whether a terminal shows a bar.

    Attributes:
        stop_signal: the number of the signal that asked to stop; 0 before.
        shown: closes the bar of the present stage.
        identity: the mark that files of the run get and are compared with. It names the data once
            `mpdit.run` has read them.
    """

    def __init__(
        self, run: RunDir, main: bool = True, recorded: bool = True, watched: bool = False
    ) -> None:
        self.run = run
        self.main = main
        self.recorded = recorded
        self.stop_signal = 0
        before = run.state() if main and recorded else None
        was_stopped = before is not None and before.error is None and before.stage != "done"
        self.state = RunState(
            started=time.time(),
            interruptions=before.interruptions + was_stopped if before else 0,
            host=socket.gethostname(),
            pid=os.getpid(),
            job=os.environ.get("SLURM_JOB_ID"),
        )
        self.console = Console(file=terminal(sys.stderr), force_terminal=watched)
        self.shown = ExitStack()
        self._beat = 0.0

    @cached_property
    def identity(self) -> Identity:
        return Identity.of(self.run.config())

    def stage(self, stage: str, step: int, steps: int) -> None:
        """Enter a stage at ``step`` of ``steps``."""
        self.state = replace(
            self.state, stage=stage, step=step, steps=steps, rate=None, eta=None, loss=None
        )
        self._write(sync=True)
        self.shown.close()
        progress = Progress(stage, steps, step, console=self.console, log=log.info)
        self._progress = self.shown.enter_context(progress)

    def advance(self, step: int, images: float, loss: float | None = None) -> None:
        """Report that ``step`` is done, at ``images`` images a step. Cheap when called often."""
        if not self.main:
            return
        now = time.monotonic()
        self.state = replace(self.state, step=step, loss=self.state.loss if loss is None else loss)
        if now - self._beat < HEARTBEAT_S and step < self.state.steps:
            return
        self._progress.done = step
        rate, loss = self._progress.rate * images, self.state.loss
        self.state = replace(self.state, rate=rate, eta=self._progress.left)
        self._write()
        note = f"{rate:,.0f} images/s"
        self._progress.show(note if loss is None else f"{note}  loss {loss:.4f}")

    def check_stop(self) -> None:
        """Raise Interrupted if a signal asked for it. Call this where the state has been saved."""
        if self.stop_signal:
            raise Interrupted(self.stop_signal)

    def end(self, *, error: str | None = None, stopped: str | None = None) -> None:
        """Record in state.json how the work ended."""
        stage = self.state.stage if error or stopped else "done"
        self.state = replace(self.state, stage=stage, error=error, stopped=stopped, eta=None)
        self._write(sync=True)

    def _write(self, *, sync: bool = False) -> None:
        self._beat = time.monotonic()
        self.state = replace(self.state, heartbeat=time.time())
        if self.main and self.recorded:
            self.run.write_state(self.state, sync=sync)


@contextmanager
def open_session(run: RunDir, main: bool = True, recorded: bool = True) -> Iterator[Session]:
    """Log to the run's log.txt, show a bar on a terminal, turn TERM, INT, USR2 into a request.

    Of several processes only the main one reports, except for errors. Work that is not ``recorded``
    leaves the run's own files unchanged.
    """
    watched = main and sys.stderr.isatty()
    session = Session(run, main, recorded, watched)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if watched:  # lines go above the bar, which shows the progress itself
        handlers = [RichHandler(console=session.console, show_level=False, show_path=False)]
        handlers[0].addFilter(lambda record: record.funcName != Progress.show.__name__)
    unopened: OSError | None = None
    if recorded and not _is_log(run):  # a launcher has sent stderr there already
        try:
            links.check(run.log)
            handlers.append(_LogFile(run.log, encoding="utf-8"))
        except OSError as error:
            unopened = error
    for handler in handlers:
        timed = not isinstance(handler, RichHandler)  # which has a column for the time
        handler.setFormatter(_Lines("%(asctime)s  %(message)s" if timed else None, TIME))
        log.addHandler(handler)
    log.setLevel(logging.INFO if main else logging.ERROR)
    if unopened is not None:
        log.error("cannot write the log: %s", explain_os_error(unopened))

    def request_stop(number: int) -> None:
        session.stop_signal = number

    try:
        with signals.watched(request_stop), session.shown:
            yield session
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


class _Lines(logging.Formatter):
    """Formats a record as printable text."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _LogFile(logging.FileHandler):
    """log.txt. A line that a full disk has no room for is dropped without an error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        return

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _is_log(run: RunDir) -> bool:
    """Whether stderr already goes to the run's log."""
    try:
        return os.path.samestat(os.fstat(sys.stderr.fileno()), run.log.stat())
    except (OSError, ValueError):  # no such log yet, or a stderr without a file
        return False
