"""Progress of counted work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mpdit.text import terminal

LOG_S = 15.0


class Progress:
    """Shows how much of ``total`` is done; on a terminal only inside a ``with`` block.

    Args:
        done: the count that was done before; the rate does not include it.
        unit: the noun that is counted, in the plural.
        console: shows the bar if it is a terminal; by default standard error.
        log: takes a line every 15 s and at the end; by default standard error if it shows no bar.
    """

    def __init__(
        self,
        title: str,
        total: float,
        done: float = 0,
        unit: str = "images",
        console: Console | None = None,
        log: Callable[[str], object] | None = None,
    ) -> None:
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._first = done
        self._began = self._logged = time.monotonic()
        console = console or Console(file=terminal(sys.stderr))
        self._bar = Bar(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, note="")
        self._bar.update(self._task, completed=done)
        self._log = log or (print_line if self._bar.disable else None)

    @property
    def rate(self) -> float:
        """Counts per second since this began."""
        return (self.done - self._first) / max(time.monotonic() - self._began, 1e-9)

    @property
    def left(self) -> float:
        """Seconds that the rest takes at this rate."""
        return (self.total - self.done) / self.rate

    def advance(self, count: float) -> None:
        """Add ``count`` to what is done, and show it."""
        self.done += count
        self.show(f"{self.rate:,.1f} {self.unit}/s")

    def show(self, note: str) -> None:
        """Show the progress; ``note`` is the text beside it, such as the rate."""
        self._bar.update(self._task, completed=self.done, note=note)
        now = time.monotonic()
        if self._log and (now - self._logged >= LOG_S or self.done == self.total):
            self._logged = now
            count = f"{self.done:.0f}/{self.total:.0f}"
            self._log(f"{self.title} {count}  {note}  {self.left:.0f} s left")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
