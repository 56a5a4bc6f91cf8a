"""A command of ``mpdit`` in the test's own process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from mpdit.commandline.door import door
from mpdit.runtime import signals


def call(*words: object) -> int:
    """Its exit status."""
    with kept_signals():
        return door([str(word) for word in words], "mpdit")


@contextmanager
def kept_signals() -> Iterator[None]:
    """A command that keeps its state notes signals for the rest of its process."""
    before = {number: signal.getsignal(number) for number in signals.STOP}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
