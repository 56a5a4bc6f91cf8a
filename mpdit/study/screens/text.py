"""What a person reads in the terminal: plans and states as lines of aligned text."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mpdit.catalogue import FLAGS, PAPERS_FLAGS
from mpdit.catalogue.flags import code_of
from mpdit.config import known_keys
from mpdit.grid.grid import yaml_text
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.grid.settings import SIZE_KEYS, shortest
from mpdit.modelconfig import PRESETS
from mpdit.study.cost import Bill
from mpdit.study.status import FRESH_S, RunStatus, counts

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
STATE_STYLES = {
    "done": "green",
    "running": "cyan",
    "queued": "",
    "failed": "red",
    "lost": "yellow",
    "interrupted": "yellow",
    "planned": "dim",
}
LISTED = 5
MANY = 40
"""Up to so many runs are all listed in a status."""


class Paint:
    """Puts a style around text, where there is a terminal to show it."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def __call__(self, text: str, style: str) -> str:
        return f"\033[{_CODES[style]}m{text}\033[0m" if self.colour and style and text else text


def count(number: int, what: str) -> str:
    """``1 run``, ``1,000 runs``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``."""
    total = max(0, round(seconds))
    for big, small, unit, rest in ((86400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if total >= big:
            return f"{total // big} {unit} {total % big // small} {rest}"
    return f"{total // 60} min {total % 60} s" if total >= 60 else f"{total} s"


def align(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[list[str]]:
    """Pad the cells of every column to one width, the numbers' to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        for row in rows
    ]


def one_line(text: str, most: int = 300) -> str:
    """Any text, safe to print as one line of a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"{line[:most]}…"


# Plan --------------------------------------------------------------------------------------------


def plan_lines(plan: Plan, bill: Bill, paint: Paint) -> Iterator[str]:
    """A plan: one line a run with the columns that differ, then what was left out or merged, and
    what it takes."""
    runs = plan.runs
    total = sum(run.config.train.steps for run in runs)
    yield paint(plan.study, "bold") + (plan.grid.description and f"  {plan.grid.description}")
    variants = len({run.variant for run in runs})
    tuned = len({tuple(map(str, run.tune.values())) for run in runs})
    factors = [count(variants, "variant")]
    factors += [count(tuned, "tuned setting")] if tuned > 1 else []
    factors += [count(len({run.seed for run in runs}), "seed")]
    yield f"{count(len(runs), 'run')}: {', '.join(factors)}; {total:,} training steps in all"
    yield ""
    columns = _columns(plan)
    numbers = [("parameters", [f"{run.parameters:,}" for run in runs])]
    sizes = _relative_sizes(runs)
    numbers += [("vs first", sizes)] if any(sizes) else []
    everything = [("run", [run.name for run in runs]), *columns, *numbers]
    header = [title for title, _ in everything]
    rows = list(zip(*(cells for _, cells in everything), strict=True))
    head, *body = align([header, *rows], [cells in numbers for cells in everything])
    yield paint("  ".join(head), "dim")
    for cells in body:
        yield "  ".join(cells)
    if any(title == "flags" for title, _ in columns):
        said = {flag for run in runs for flag in run.config.model.flags} - set(PAPERS_FLAGS)
        legend = ", ".join(f"{code_of(flag)} {flag}" for flag in (*PAPERS_FLAGS, *sorted(said)))
        yield paint(f"flags: {legend}", "dim")
    yield from _left_out(plan, paint)
    yield ""
    yield from bill.lines()


def _relative_sizes(runs: Sequence[PlannedRun]) -> list[str]:
    """How many more parameters than the first run of the same model name has; '' for as many."""
    first: dict[str, int] = {}
    sizes = []
    for run in runs:
        base = first.setdefault(run.config.model.name, run.parameters)
        change = f"{100 * (run.parameters / base - 1):+.2f} %".replace("-", "−")
        sizes.append("" if run.parameters == base else change)
    return sizes


def _columns(plan: Plan) -> list[tuple[str, list[str]]]:
    """(title, cells) for everything that the grid sets and that differs between its runs."""
    grid = plan.grid
    layers = [grid.base, grid.overrides, *(named.layer for named in grid.named)]
    layers += [choice for axis in (*grid.axes, *grid.tune) for choice in axis.choices]
    said = {key for layer in layers for key in layer}
    presets = [layer["model.preset"].value for layer in layers if "model.preset" in layer]
    said |= {f"model.{name}" for preset in presets for name in PRESETS[preset]}
    own = [
        key for key in known_keys() if key in said - set(SIZE_KEYS) - {"model.name", "model.preset"}
    ]
    own = [key for key in own if key.removeprefix("model.") not in FLAGS]
    columns = [
        ("model", [run.config.model.name for run in plan.runs]),
        ("flags", [_flags(run) for run in plan.runs]),
    ]
    for key in own:
        section, _, name = key.partition(".")
        values = [getattr(getattr(run.config, section), name) for run in plan.runs]
        title = {"data.name": "data"}.get(
            key, name if section in ("model", "train") else shortest(key)
        )
        columns.append((title, [yaml_text(value) for value in values]))
    return [(title, cells) for title, cells in columns if len(set(cells)) > 1]


def _flags(run: PlannedRun) -> str:
    on = run.config.model.flags
    if on[: len(PAPERS_FLAGS)] == PAPERS_FLAGS:
        return " ".join(("all", *map(code_of, on[len(PAPERS_FLAGS) :])))
    return " ".join(map(code_of, on)) or "none"


def _left_out(plan: Plan, paint: Paint, listed: int = 6) -> Iterator[str]:
    if plan.excluded:
        yield ""
        yield paint("left out", "bold")
    for excluded in plan.excluded:
        text = excluded.exclusion.text
        if not excluded.runs:
            yield paint(f"  {text} matches nothing", "yellow")
            continue
        reason = excluded.exclusion.reason and f": {excluded.exclusion.reason}"
        yield f"  {count(excluded.runs, 'run')} with {text}{reason}"
        more = len(excluded.labels) - listed
        tail = f", … {more:,} more" if more > 0 else ""
        yield paint(f"    {', '.join(excluded.labels[:listed])}{tail}", "dim")
    if plan.merged:
        yield ""
        yield paint("kept once", "bold")
    for merged in plan.merged:
        yield f"  {merged.label} is the same as {merged.kept} ({count(merged.runs, 'run')})"


def grid_changes(new: Sequence[str], dropped: Sequence[str], paint: Paint) -> Iterator[str]:
    """What a grid has now and had not when it was last submitted, and the other way round."""
    if new:
        yield f"  new in the grid: {_listed(new)}"
    if dropped:
        yield paint(f"  no longer in the grid, and kept on disk: {_listed(dropped)}", "yellow")


def _listed(names: Sequence[str]) -> str:
    more = f", … {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"{count(len(names), 'run')} ({', '.join(names[:LISTED])}{more})"


# Status ------------------------------------------------------------------------------------------


def bar(fraction: float, width: int) -> str:
    """A bar of ``width`` characters."""
    full = round(max(0.0, min(1.0, fraction)) * width)
    return "━" * full + "─" * (width - full)


def tally(statuses: Sequence[RunStatus], paint: Paint) -> str:
    """``8 done, 2 running, 4 queued``."""
    states = counts(statuses).items()
    return ", ".join(paint(f"{n:,} {state}", STATE_STYLES[state]) for state, n in states)


def summary(statuses: Sequence[RunStatus], paint: Paint) -> str:
    """``8 of 14 done, 2 running, 4 queued``."""
    rest = [status for status in statuses if status.state != "done"]
    done = f"{len(statuses) - len(rest):,} of {len(statuses):,} done"
    return ", ".join(filter(None, (done, tally(rest, paint))))


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
            cells[1] = paint(cells[1], STATE_STYLES[status.word])
            cells[4] = paint(cells[4], "cyan")
            note = paint(_note(status), "red" if status.error else "dim")
            yield "  ".join([*itertools.compress(cells, used), note]).rstrip()
    hidden = counts(_difference(statuses, shown))
    if hidden:
        listed = ", ".join(f"{n:,} {state}" for state, n in hidden.items())
        yield paint(f"not listed: {listed} (--json has all)", "dim")


def _interesting(statuses: Sequence[RunStatus], most: int = MANY) -> list[RunStatus]:
    half_done = [s for s in statuses if s.word == "interrupted"]
    shown = [s for s in statuses if s.state == "running"]
    for group in ([s for s in statuses if s.state in ("failed", "lost")], half_done):
        shown += group[:most]
    return shown


def _difference(statuses: Iterable[RunStatus], shown: Iterable[RunStatus]) -> list[RunStatus]:
    names = {status.name for status in shown}
    return [status for status in statuses if status.name not in names]


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
    return paint(f"{status.name} {status.state}: {reason}", STATE_STYLES[status.state])


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


def fit(lines: Iterable[str], width: int) -> Any:
    """Lines for a live display: each cropped to the terminal's width."""
    from rich.console import Group
    from rich.text import Text

    texts = [Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in lines]
    for text in texts:
        text.truncate(width, overflow="ellipsis")
    return Group(*texts)
