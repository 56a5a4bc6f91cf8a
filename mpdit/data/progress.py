"""How far a count of images has come: a bar for a watcher, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LOG_S = 15.0


class Progress:
    """Images done of ``total``, ``done`` of them before this began; on standard error."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self._first, self._began = done, time.monotonic()
        self._logged = self._began
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]} images/s"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.done, speed="–"
            )
            self._bar.start()
        return self

    def advance(self, images: int) -> None:
        """So many more are done."""
        self.done += images
        now = time.monotonic()
        speed = (self.done - self._first) / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, speed=f"{speed:,.0f}")
        elif now - self._logged >= LOG_S or self.done == self.total:
            self._logged = now
            left = (self.total - self.done) / speed
            text = f"{self.title}: {self.done:,}/{self.total:,}  {speed:,.1f} images/s"
            print(f"{text}  {left:,.0f} s left", file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
