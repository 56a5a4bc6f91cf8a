"""The states of runs as lines of text: the line on top, the table, and what goes wrong."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from mpdit.study.status import COLOURS, FRESH_S, RunStatus, summary, tally
from mpdit.text import Paint, align, bar, duration, one_line

MANY = 40
"""Up to so many runs are all listed in a status."""


def overview(study: str, statuses: Sequence[RunStatus], paint: Paint, left: float | None) -> str:
    """The line on top: the study, a bar, the counts, and the time left (s)."""
    done = sum(progress(status) for status in statuses) / max(1, len(statuses))
    tail = "" if left is None else f", about {duration(left)} left"
    return (
        f"{paint(study, 'bold')}  {paint(bar(done, 20), 'cyan')}  {summary(statuses, paint)}{tail}"
    )


def progress(status: RunStatus) -> float:
    """How much of a run is behind it; training counts for nine tenths."""
    if status.state == "done":
        return 1.0
    fraction = status.step / status.steps if status.steps else 0.0
    return {"train": 0.9 * fraction, "sample": 0.9 + 0.08 * fraction}.get(status.stage, 0.98)


def status_lines(
    statuses: Sequence[RunStatus], paint: Paint, *, everything: bool | None = None
) -> Iterator[str]:
    """A table of runs.

    Args:
        everything: all of them; by default only where they are few, and else those that run, wait
            half done, failed or got lost.
    """
    if everything is None:
        everything = len(statuses) <= MANY
    shown = list(statuses) if everything else _interesting(statuses)
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


def _interesting(statuses: Sequence[RunStatus], most: int = MANY) -> list[RunStatus]:
    half_done = [s for s in statuses if s.word == "interrupted"]
    shown = [s for s in statuses if s.state == "running"]
    for group in ([s for s in statuses if s.state in ("failed", "lost")], half_done):
        shown += group[:most]
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


def waiting_lines(statuses: Sequence[RunStatus], paint: Paint) -> Iterator[str]:
    """What the queued ones wait for, by Slurm's words."""
    reasons = Counter(status.waits for status in statuses if status.waits)
    if reasons:
        listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
        yield paint(f"Slurm lets wait: {listed}", "dim")


def trouble(status: RunStatus, paint: Paint) -> str:
    """One line on a run that has failed or got lost."""
    reason = one_line(status.error or "its process is gone")
    return paint(f"{status.name} {status.state}: {reason}", COLOURS[status.state])


def _note(status: RunStatus) -> str:
    notes = []
    if not status.in_grid:
        notes.append("no longer in the grid")
    if status.error:
        notes.append(one_line(status.error))
    if status.silent is not None and status.silent > FRESH_S:
        notes.append(f"no word for {duration(status.silent)}")
    if status.waits:
        notes.append(f"waits: {status.waits}")
    if status.stopped:
        notes.append(f"by {status.stopped}; goes on when submitted")
    if status.state == "lost":
        notes.append("its process is gone")
    if status.state == "done" and status.seconds:
        notes.append(f"{duration(status.seconds)} after its last start")
    return "; ".join(notes)
