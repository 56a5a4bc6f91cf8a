"""Follow a study while it runs: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import TextIO

from mpdit.errors import ConfigError
from mpdit.study.cluster.scheduler import ASK_S, Scheduler
from mpdit.study.feed import feed, wants
from mpdit.study.screens.statustable import (
    TROUBLED,
    finished,
    overview,
    progress,
    status_lines,
    time_left,
    trouble,
)
from mpdit.study.status import RunStatus, summary, survey
from mpdit.study.studydir import StudyDir
from mpdit.text import Paint, count, duration, fit, one_line, terminal

POLL_S = 0.5
FEED_S = (5.0, 300.0)
"""The first and the longest pause in seconds between two attempts to submit waiting runs. Slurm
counts a task for some seconds after its run has ended, so the pause begins small and doubles."""
PAUSE_S = 2.0
"""The longest pause in seconds between two updates, however long reading the study takes."""
REPORT_S = 15.0
"""Seconds between two lines on the progress."""
LISTED = 4


def follow(
    study: StudyDir, names: Collection[str] | None, working: Callable[[], bool], out: TextIO
) -> list[RunStatus]:
    """Show runs until ``working()`` is false and no run is running, queued or waiting for room.

    Submits the runs that wait for room and the next stage, and retries the failed ones, as
    `feed.feed`.

    Args:
        names: the runs; None: all runs of a staged study, including later stages.

    Returns:
        the final state of each run.
    """
    scheduler, feeder = Scheduler(ASK_S), _Feeder(study)
    follower = _Screen(study, scheduler, out) if out.isatty() else _Lines(out)
    with follower:
        while True:
            still = working()  # asked first: a state that is read after the end is final
            began = time.monotonic()
            if names is None:  # its table may have changed
                study = StudyDir(study.path)
            statuses = survey(study, names, scheduler)
            follower.show(statuses)
            told = feeder.attend(statuses, ended=names is None and not still)
            for line in told:
                follower.tell(line)
            if told:
                study = StudyDir(study.path)
                continue
            if not still and not any(status.is_active for status in statuses):
                return statuses
            looked = time.monotonic() - began
            time.sleep(min(max(POLL_S, 10 * looked), PAUSE_S))


class _Feeder:
    """Feeds a followed study when its runs have ended, and now and then."""

    def __init__(self, study: StudyDir) -> None:
        self.study = study
        self.seen: Counter[str] = Counter()
        self.tried = float("-inf")
        self.pause = 0.0

    def attend(self, statuses: list[RunStatus], *, ended: bool) -> list[str]:
        """Feed the study if there may be room or a run to retry; return lines on the result.

        With ``ended``, feed it also where no run is active: another stage may come next.
        """
        is_next = ended and not any(status.is_active for status in statuses)
        seen = Counter(status.state for status in statuses)
        least, most = FEED_S
        if seen != self.seen:
            self.seen, self.pause = seen, min(self.pause, least)
        waits = time.monotonic() - self.tried < self.pause
        if not is_next and (waits or not wants(statuses)):
            return []
        self.tried, self.pause = time.monotonic(), min(most, max(least, 2 * self.pause))
        try:
            fed = feed(self.study)
        except (ConfigError, OSError) as error:
            return [f"cannot submit the waiting runs: {error}"]
        return [f"{count(len(submission.started), 'run')} more submitted" for submission in fed]


class _Display:
    """Shows a study again and again, and estimates the time left."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first: float | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def left(self, statuses: list[RunStatus]) -> float | None:
        """Seconds left at the pace since the first update, None while that is unknown, and when
        all runs are done.

        Never less than the slowest run has left by its own estimate.
        """
        behind = sum(map(progress, statuses))
        self.first = behind if self.first is None else self.first
        seconds, gained = time.monotonic() - self.began, behind - self.first
        if gained <= 0 or seconds < 5 or behind == len(statuses):
            return None
        slowest = max((status.eta or 0 for status in statuses), default=0)
        return max(slowest, seconds / gained * (len(statuses) - behind))


class _Screen(_Display):
    """A live display, redrawn in place."""

    def __init__(self, study: StudyDir, scheduler: Scheduler, out: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self.study = study
        self.scheduler = scheduler
        self.console = Console(file=terminal(out))
        self.told = ""
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> None:
        self.live.__enter__()

    def __exit__(self, *_: object) -> None:
        self.live.__exit__(None, None, None)

    def show(self, statuses: list[RunStatus]) -> None:
        paint = Paint(not self.console.no_color)
        running = [status for status in statuses if status.state == "running"]
        left = self.left(statuses)
        lines = [*overview(self.study.name, statuses, self.scheduler.silence, paint, left), ""]
        lines += status_lines(running, paint)
        lines += [trouble(s, paint) for s in statuses if s.state in TROUBLED]
        lines += [self.told]
        room = self.console.height - 2
        self.live.update(fit(lines[:room], self.console.width), refresh=True)

    def tell(self, text: str) -> None:
        self.told = f"{time.strftime('%H:%M:%S')}  {text}"


class _Lines(_Display):
    """One timestamped line for each change, and one now and then on the progress."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self.out = out
        self.before: dict[str, str] = {}
        self.reported = self.began

    def show(self, statuses: list[RunStatus]) -> None:
        if self.before and (fresh := sum(s.name not in self.before for s in statuses)):
            self.report(f"the next stage needs {count(fresh, 'more run')}")
        changed = [status for status in statuses if self._is_news(status)]
        unstarted = [status for status in changed if self._was_not_started(status)]
        if len(unstarted) > LISTED:
            self.report(f"{len(unstarted):,} runs were not started")
            changed = [status for status in changed if status not in unstarted]
        for status in changed:
            self.event(status)
        self.before = {status.name: status.state for status in statuses}
        left = self.left(statuses)
        if time.monotonic() - self.reported >= REPORT_S:
            self.reported = time.monotonic()
            running = [_line(s) for s in statuses if s.state == "running"]
            if len(running) > LISTED:
                running[LISTED:] = [f"{len(running) - LISTED} more"]
            self.report("; ".join([f"{summary(statuses)}{time_left(left)}", *running]))

    def _is_news(self, status: RunStatus) -> bool:
        before = self.before.get(status.name)
        is_new = before is None and status.state == "planned"
        return (
            status.state != before and not is_new and bool(self.before or status.state == "running")
        )

    def _was_not_started(self, status: RunStatus) -> bool:
        before = self.before.get(status.name)
        return status.state == "planned" and not status.has_begun and before != "running"

    def event(self, status: RunStatus) -> None:
        match status.state:
            case "running":
                at = f" at {status.stage} {status.step:,}" if status.step else ""
                on = f" on {status.where}" if status.job and status.where else ""
                self.report(f"{status.name} started{at}{on}")
            case "done":
                self.report(f"{status.name} {finished(status)}")
            case "failed":
                self.report(f"{status.name} failed: {one_line(status.error or '')}")
            case "planned" if self._was_not_started(status):
                self.report(f"{status.name} was not started")
            case "planned" | "lost":
                self.report(f"{status.name} stopped at {status.stage} {status.step:,}")

    def tell(self, text: str) -> None:
        self.report(text)

    def report(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=self.out, flush=True)


def _line(status: RunStatus) -> str:
    parts = [f"{status.name} {status.stage} {status.step:,}/{status.steps:,}"]
    if status.rate is not None:
        parts.append(f"{status.rate:,.0f} images/s")
    if status.eta is not None:
        parts.append(f"{duration(status.eta)} left")
    return ", ".join(parts)


def outcome(study: StudyDir, statuses: list[RunStatus], seconds: float, paint: Paint) -> list[str]:
    """The final message: counts, and the reason and log of each run that failed."""
    ended = [s for s in statuses if s.state in TROUBLED]
    lines = [f"{paint(study.name, 'bold')}: {summary(statuses, paint)} after {duration(seconds)}"]
    for status in ended[:10]:
        lines.append(f"  {trouble(status, paint)}")
        lines.append(f"    {study.run(status.name).log}")
    if len(ended) > 10:
        lines.append(f"  and {count(len(ended) - 10, 'run')} more")
    return lines
