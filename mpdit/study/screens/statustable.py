"""The states of runs as lines of text: an overview, a table, and the failures."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from mpdit.disk.rundir import share_done
from mpdit.study.status import COLOURS, FRESH_S, RunStatus, summary, tally
from mpdit.text import Paint, align, bar, count, duration, one_line

NO_ROOM = "waiting until Slurm has room"
TROUBLED = ("failed", "lost", "unreadable")
_FOLDERS = re.compile(r"(?<!\S)/(?:[^/\s:]+/)+")
"""The folders of an absolute path: the reason after them matters more."""
MANY = 40
"""A status lists all runs up to this many."""


def overview(
    study: str, statuses: Sequence[RunStatus], silence: str, paint: Paint, left: float | None = None
) -> Iterator[str]:
    """The study with a bar, counts and the time left (s), then why runs wait in Slurm.

    Args:
        silence: why Slurm did not answer (`Scheduler.silence`), '' when it did.
    """
    done = sum(progress(status) for status in statuses) / max(1, len(statuses))
    head = f"{paint(study, 'bold')}  {paint(bar(done, 20), 'cyan')}"
    yield f"{head}  {summary(statuses, paint)}{time_left(left)}"
    for state, what in (("queued", "waiting in Slurm"), ("waiting", NO_ROOM)):
        reasons = Counter(status.waits for status in statuses if status.state == state)
        listed = ", ".join(f"{n:,} ({reason})" for reason, n in reasons.most_common() if reason)
        if listed:
            yield paint(f"{what}: {listed}", "dim")
    if silence:
        yield paint(f"states as last known: {silence}", "yellow")


def time_left(seconds: float | None) -> str:
    """The text ``, about 5 min 3 s left``; '' where the time is not known."""
    return "" if seconds is None else f", about {duration(seconds)} left"


def progress(status: RunStatus) -> float:
    """The fraction of a run that is done (`mpdit.disk.rundir.share_done`)."""
    if status.state == "done":
        return 1.0
    stage = "evaluate" if status.stage == "done" else status.stage
    return share_done(stage, status.step, status.steps)


def status_lines(statuses: Sequence[RunStatus], paint: Paint) -> Iterator[str]:
    """A table of all runs, or of many only the running, failed, lost and interrupted runs."""
    shown = list(statuses) if len(statuses) <= MANY else _interesting(statuses)
    if shown:
        right = [False, False, False, True, False, True, True, True, True, False]
        header = ["run", "state", "stage", "step", "", "images/s", "for", "left", "loss", "on"]
        head, *body = align([header, *map(_cells, shown)], right)
        used = [any(cell.strip() for cell in column) for column in zip(*body, strict=True)]
        yield paint("  ".join(itertools.compress(head, used)).rstrip(), "dim")
        for status, cells in zip(shown, body, strict=True):
            cells[1] = paint(cells[1], COLOURS[status.word])
            cells[4] = paint(cells[4], "cyan")
            note = paint(_note(status), "red" if status.error else "dim")
            yield "  ".join([*itertools.compress(cells, used), note]).rstrip()
    names = {status.name for status in shown}
    if hidden := [status for status in statuses if status.name not in names]:
        yield paint(f"not listed: {tally(hidden)} (--json has all)", "dim")


def _interesting(statuses: Sequence[RunStatus]) -> list[RunStatus]:
    shown = [status for status in statuses if status.state == "running"]
    for words in (TROUBLED, ("interrupted",)):
        shown += [status for status in statuses if status.word in words][:MANY]
    return shown


def _cells(status: RunStatus) -> list[str]:
    done = status.state == "done"
    begun = status.step > 0 or status.stage != "train"
    fraction = status.step / status.steps if status.steps else 0.0
    running = status.state == "running"
    return [
        status.name,
        status.word,
        status.stage if begun and not done else "",
        f"{status.step:,}/{status.steps:,}" if begun and not done else "",
        bar(fraction, 10) if running else "",
        f"{status.rate:,.0f}" if status.rate is not None else "",
        duration(status.seconds) if running and status.seconds is not None else "",
        duration(status.eta) if status.eta is not None else "",
        f"{status.loss:.4f}" if status.loss is not None and not done else "",
        status.where if running and status.job and status.where else "",
    ]


def trouble(status: RunStatus, paint: Paint) -> str:
    """One line on a run that failed or was lost."""
    reason = one_line(status.error or "its process is gone")
    return paint(f"{status.name} {status.state}: {reason}", COLOURS[status.state])


def finished(status: RunStatus) -> str:
    """The time of a done run's last start, and how often it was interrupted before."""
    after = f" in {duration(status.seconds)}" if status.seconds else ""
    before = f" after {count(status.interruptions, 'interruption')}" if status.interruptions else ""
    return f"finished{after}{before}"


def _attempts(status: RunStatus) -> str:
    """Each earlier attempt: why it failed, and the resources that it had."""
    told = []
    for attempt in status.attempts:
        minutes = attempt["time"] and duration(60 * attempt["time"])
        had = ", ".join(filter(None, (minutes, attempt["memory"])))
        error = _FOLDERS.sub("…/", attempt["error"])
        told.append(one_line(error, 120) + (f" (with {had})" if had else ""))
    return "; ".join(told)


def _note(status: RunStatus) -> str:
    notes = []
    if not status.in_grid:
        notes.append("no longer in the grid")
    if status.error:
        notes.append(one_line(status.error))
    if status.silent is not None and status.silent > FRESH_S:
        notes.append(f"no heartbeat for {duration(status.silent)}")
    if status.waits:
        notes.append(f"waits: {status.waits}")
    if status.attempts:
        notes.append(f"attempt {len(status.attempts) + 1}, after {_attempts(status)}")
    if status.stopped:
        notes.append(f"stopped by {status.stopped}; submit to resume")
    if status.state == "lost":
        notes.append("its process is gone")
    if status.state == "done" and status.seconds:
        notes.append(finished(status))
    return "; ".join(notes)
