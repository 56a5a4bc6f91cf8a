"""The signals that ask a run to stop, handled from its first line on.

Imports the standard library only, so that it is ready before torch, whose import takes seconds. A
signal in between is recorded; it must not kill a job that Slurm is about to requeue.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

noted = 0
"""The number of the last signal that came before `watched`."""


def note() -> None:
    """Record the signals from now on, without acting on them."""
    for number in STOP:
        signal.signal(number, _note)


@contextmanager
def watched(stop: Callable[[int], None]) -> Iterator[None]:
    """Call ``stop`` with the number of each signal, first with that of a recorded one."""

    def call(number: int, _frame: FrameType | None) -> None:
        stop(number)

    before = {number: signal.signal(number, call) for number in STOP}
    try:
        if noted:
            stop(noted)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(number: int, _frame: FrameType | None) -> None:
    global noted
    noted = number


def _leave_to_parent() -> None:
    """Let TERM and INT end a forked helper. USR2, which all processes of a job get, is ignored.

    Its parent decides what the signals mean.
    """
    for number in STOP:
        if getattr(signal.getsignal(number), "__module__", "") == __name__:
            ignored = number == signal.SIGUSR2
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


os.register_at_fork(after_in_child=_leave_to_parent)
