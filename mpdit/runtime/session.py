"""What a run says of itself while it works, and whether it was asked to stop.

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
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mpdit.disk.identity import Identity
from mpdit.disk.rundir import RunDir, RunState, explain_os_error
from mpdit.runtime import signals

HEARTBEAT_S = 2.0
LOG_S = 15.0

log = logging.getLogger("mpdit")


class Interrupted(Exception):
    """The run was asked to stop by a signal (its number), and has kept its state."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


class Session:
    """One process's work on one run.

    Args:
        main: whether it is the process that speaks; the others of a run only listen to signals.
        recorded: whether the run itself is told, in its state.json.

    Attributes:
        stop_signal: the number of the signal that asked to stop; 0 before.
        identity: what files of the run are marked with, and compared with. It names the data once
            `mpdit.run` has read them.
    """

    def __init__(self, run: RunDir, main: bool = True, recorded: bool = True) -> None:
        self.run = run
        self.main = main
        self.recorded = recorded
        self.stop_signal = 0
        self.state = RunState(
            started=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            job=os.environ.get("SLURM_JOB_ID"),
        )
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._beat = self._logged = 0.0
        self._mark = (0.0, 0)

    @cached_property
    def identity(self) -> Identity:
        return Identity.of(self.run.config())

    def stage(self, stage: str, step: int, steps: int) -> None:
        """Enter a stage at ``step`` of ``steps``."""
        self.state = replace(
            self.state, stage=stage, step=step, steps=steps, rate=None, eta=None, loss=None
        )
        self._mark = (time.monotonic(), step)
        self._logged = time.monotonic()
        self._write(sync=True)
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(stage, total=steps, completed=step, note="")

    def advance(self, step: int, images: float, loss: float | None = None) -> None:
        """Step ``step`` of the stage is done, ``images`` images a step. Cheap when called often."""
        if not self.main:
            return
        now = time.monotonic()
        self.state = replace(self.state, step=step, loss=self.state.loss if loss is None else loss)
        if now - self._beat < HEARTBEAT_S and step < self.state.steps:
            return
        since, first = self._mark
        speed = (step - first) / (now - since)  # steps/s since the stage was entered
        eta = (self.state.steps - step) / speed
        self.state = replace(self.state, rate=speed * images, eta=eta)
        self._write()
        note = f"{speed * images:,.0f} images/s"
        if self.state.loss is not None:
            note += f"  loss {self.state.loss:.4f}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, note=note)
        if now - self._logged >= LOG_S or step == self.state.steps:
            self._logged = now
            log.info(
                "%s %d/%d  %s  %.0f s left", self.state.stage, step, self.state.steps, note, eta
            )

    def check_stop(self) -> None:
        """Raise Interrupted when a signal has asked for it; call where the state has been kept."""
        if self.stop_signal:
            raise Interrupted(self.stop_signal)

    def end(self, *, error: str | None = None, stopped: str | None = None) -> None:
        """Say how the work ended, in state.json."""
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

    Of several processes only the main one speaks, save for errors. Work that is not ``recorded``
    leaves the run's own files as they are.
    """
    session = Session(run, main, recorded)
    watched = main and sys.stderr.isatty()
    console = Console(stderr=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if watched:  # lines go above the bar, which shows the progress itself
        handlers = [RichHandler(console=console, show_level=False, show_path=False)]
        handlers[0].addFilter(lambda record: record.funcName != Session.advance.__name__)
    unopened: OSError | None = None
    if recorded and not _is_log(run):  # a launcher has sent stderr there already
        try:
            handlers.append(_LogFile(run.log))
        except OSError as error:
            unopened = error
    for handler in handlers:
        if not isinstance(handler, RichHandler):  # it has a column for the time
            handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO if main else logging.ERROR)
    if unopened is not None:
        log.error("cannot write the log: %s", explain_os_error(unopened))

    def request_stop(number: int) -> None:
        session.stop_signal = number

    try:
        with signals.watched(request_stop):
            if watched:
                columns = (
                    TextColumn("{task.description:>8}"),
                    BarColumn(),
                    TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                    TimeRemainingColumn(),
                    TextColumn("{task.fields[note]}"),
                )
                with Progress(*columns, console=console) as session._bar:
                    yield session
            else:
                yield session
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


class _LogFile(logging.FileHandler):
    """log.txt; a line for which the disk has no room is lost, without a word of its own."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        return

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _is_log(run: RunDir) -> bool:
    """Whether stderr goes to the run's log already."""
    try:
        return os.path.samestat(os.fstat(sys.stderr.fileno()), run.log.stat())
    except (OSError, ValueError):  # no such log yet, or a stderr without a file
        return False
