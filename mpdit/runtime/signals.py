"""The signals that ask a run to stop, from its first line on.

Only the standard library, so that it is there before torch, whose import takes seconds: what comes
meanwhile is noted, instead of killing a job that Slurm is about to requeue.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

noted = 0
"""The number of the last one that came before anybody watched."""


def note() -> None:
    """From now on they do no more than being noted."""
    for number in STOP:
        signal.signal(number, _note)


@contextmanager
def watched(stop: Callable[[int], None]) -> Iterator[None]:
    """Call ``stop`` with the number of each that comes, and of the one that was noted before."""

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
    """In a forked helper: TERM and INT end it, and USR2, which all processes of a job get, nothing.

    What to do about them is its parent's business.
    """
    for number in STOP:
        if getattr(signal.getsignal(number), "__module__", "") == __name__:
            ignored = number == signal.SIGUSR2
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


os.register_at_fork(after_in_child=_leave_to_parent)
