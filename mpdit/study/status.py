"""The state of every run of a study, from its files, its Slurm task and its heartbeat's age."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mpdit.disk.holds import read_held
from mpdit.disk.rundir import RunDir, RunState
from mpdit.grid.plan import PlannedRun
from mpdit.study.cluster.endings import classify
from mpdit.study.cluster.scheduler import Placement, Scheduler
from mpdit.study.studydir import StudyDir
from mpdit.study.waiting import read_waiting
from mpdit.text import PLAIN, Paint

COLOURS = {
    "done": "green",
    "running": "cyan",
    "queued": "",
    "held": "yellow",
    "waiting": "",
    "failed": "red",
    "unreadable": "red",
    "lost": "yellow",
    "interrupted": "yellow",
    "planned": "dim",
    "not needed": "dim",
}
"""The states as they are printed, in the order of counts."""
ACTIVE = ("running", "queued", "waiting")
"""``queued`` in Slurm or in a local pool; ``waiting`` for room, not yet accepted by Slurm."""
WAITING = ("queued", "held")
TO_DO = ("planned", "waiting", "failed", "lost")
OWN_LIMIT = {"JobArrayTaskLimit": "max_parallel"}
"""Slurm's reasons that a study's own key causes → the key."""
HELD = ("JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue")
"""Slurm's reasons for tasks that wait until somebody releases them."""
FRESH_S = 120
"""A run on another host is alive while its heartbeat is younger than this."""


@dataclass(frozen=True)
class RunStatus:
    """One run, at ``step`` of ``steps`` of its ``stage``; rate in images/s, eta in seconds."""

    name: str
    id: str
    variant: str
    seed: int | None
    state: str
    stage: str
    step: int
    steps: int
    rate: float | None = None
    eta: float | None = None
    loss: float | None = None
    seconds: float | None = None
    """Seconds from its last start to its last heartbeat."""
    interruptions: int = 0
    """How often it was resumed after a process that ended without recording an error."""
    where: str | None = None
    """The host, or Slurm's list of nodes, of a running run."""
    job: str | None = None
    """Slurm's id of its task."""
    waits: str | None = None
    """Slurm's reason why its task waits, or has not been accepted."""
    silent: float | None = None
    """Seconds since the last heartbeat of a running run."""
    error: str | None = None
    stopped: str | None = None
    in_grid: bool = True
    needed: bool = True
    """False where the results of a staged study have made it unnecessary."""
    retries: int = 0
    """How often it will be retried by itself if it fails again."""
    attempts: Sequence[dict[str, Any]] = ()
    """Its earlier submissions that failed: their ``error``, ``time`` (min) and ``memory``."""

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def is_pending(self) -> bool:
        """Whether it runs, or will run without another submission."""
        return self.is_active or self.state == "held"

    @property
    def has_begun(self) -> bool:
        return self.step > 0 or self.stage != "train"

    @property
    def word(self) -> str:
        """The state as it is printed: ``interrupted`` for a planned run that has begun, ``not
        needed`` for a run that a staged study no longer needs."""
        if not self.needed and self.state in TO_DO:
            return "not needed"
        return "interrupted" if self.state == "planned" and self.has_begun else self.state

    @property
    def cause_told(self) -> str:
        """The cause as it is printed: with a question mark where only SIGKILL suggests it."""
        return self.cause + "?" * ("(out of memory?)" in (self.error or ""))

    @property
    def keeps_code(self) -> bool:
        """Whether a retry keeps its code: it has begun, and it did not fail because of its code."""
        return self.has_begun and self.cause != "failed"

    @property
    def cause(self) -> str:
        """Why it failed or was lost, in two words (`endings.Cause`); '' for other states."""
        if self.state not in ("failed", "lost"):
            return ""
        return classify("", self.error or "").kind or self.state


def survey(
    study: StudyDir, names: Iterable[str] | None = None, scheduler: Scheduler | None = None
) -> list[RunStatus]:
    """The states of a study's runs in the order of study.json, or of those in ``names``.

    Args:
        scheduler: asked about the runs claimed for Slurm; a new one by default.

    Raises:
        ConfigError: when the folder is not a study.
    """
    known = study.all_claims()
    claims = [claim for claim in known if claim.is_live]
    waiting = read_waiting(study.path)
    places = dict.fromkeys(waiting.runs, Placement("no room", reason=waiting.limit))
    places |= {run: _HERE for claim in claims for run in claim.runs}
    # ask Slurm before reading the disk: a run that ends in between is then done on disk
    places |= (scheduler or Scheduler()).look(claims)
    unstarted = {run: why for claim in known for run, why in claim.reasons.items()}
    chosen, held = None if names is None else set(names), read_held(study.path)
    entries = {entry["name"]: entry for entry in study.table["runs"]}
    return [
        read_status(study.run(name), entry, places.get(name), name in held, unstarted.get(name))
        for name, entry in entries.items()
        if chosen is None or name in chosen
    ]


_HERE = Placement("waiting")  # in a local pool


def missing(
    study: StudyDir, runs: Sequence[PlannedRun], states: Collection[str] = TO_DO
) -> list[PlannedRun]:
    """The planned runs that are in one of ``states``; a run without a folder is ``planned``.

    By default those that are not done, running or queued.
    """
    if not (study.path / "study.json").exists():
        return [run for run in runs if "planned" in states]
    found, places = {s.name: s.state for s in survey(study)}, study.places(runs)
    return [r for r in runs if found.get(places.get(r.id, r.name), "planned") in states]


def read_status(
    run: RunDir,
    entry: dict[str, Any],
    place: Placement | None,
    held: bool = False,
    unstarted: str | None = None,
) -> RunStatus:
    """The state of one run: the first that applies of unreadable, done, running here, the state
    of its claim, failed, running on another host, lost, and planned.

    Args:
        held: whether the study holds it; for a waiting task, Slurm's reason decides instead.
        unstarted: why the last pool could not start it.
    """
    keys = ("name", "id", "variant", "seed", "in_grid", "needed")
    common: dict[str, Any] = {"seed": None} | {k: entry[k] for k in keys if k in entry}
    common |= {k: v for k, v in entry.get("submitted", {}).items() if k in ("retries", "attempts")}
    steps = entry.get("steps", 0)
    try:
        files = os.listdir(run.path)  # noqa: PTH208 - one call in place of one for each missing file
    except (FileNotFoundError, NotADirectoryError):
        files = []
    except PermissionError as denied:  # another user's
        reason = f"cannot read {run.path} ({denied.strerror})"
        return RunStatus(
            state="unreadable", stage="train", step=0, steps=steps, error=reason, **common
        )
    done = "evaluation.jsonl" in files and run.is_done()
    # A process writes its state before it releases the lock: look at the lock first.
    leased = not done and "lock" in files and run.is_leased()
    said = run.state() if "state.json" in files else None
    if said is not None and said.stage == "done" and not done:
        done = run.is_done()
    seconds = None if said is None else said.heartbeat - said.started
    common["interruptions"] = 0 if said is None else said.interruptions
    if done:
        return RunStatus(
            state="done", stage="done", step=steps, steps=steps, seconds=seconds, **common
        )
    ended = explain_end(said, place) if place is not None and place.state == "gone" else None
    state = "running" if leased else ended[0] if ended else _idle_state(said, place)
    if state == "queued" and place is not None and place.task and place.state == "waiting":
        held = place.reason in HELD
    state = "held" if held and state in ("queued", "waiting", "planned") else state
    running = state == "running"
    last = said or RunState()
    error = ended[1] if ended else last.error
    if state == "planned" and unstarted and not last.stopped:
        state, error = "failed", f"could not start: {unstarted}"
    if place is not None and place.task:
        waits = OWN_LIMIT.get(place.reason, place.reason) if state in WAITING else None
        common |= {"job": place.task, "waits": waits}
    elif state == "waiting" and place is not None:
        common["waits"] = place.reason
    if running:
        common["where"] = (place and place.nodes) or last.host or None
        common["silent"] = None if said is None else max(0.0, time.time() - said.heartbeat)
        common |= {"rate": last.rate, "eta": last.eta}
        if place is not None and said is None:
            seconds = place.elapsed
    return RunStatus(
        state=state,
        stage=last.stage,
        step=last.step,
        steps=last.steps or steps,
        loss=last.loss,
        seconds=seconds,
        error=error if state == "failed" else None,
        stopped=last.stopped if state in ("planned", "held") else None,
        **common,
    )


def explain_end(said: RunState | None, place: Placement) -> tuple[str, str | None]:
    """The state and the error of a run that is not done and whose task is gone."""
    if said is not None and said.heartbeat < place.since:
        said = None  # of an earlier attempt
    if said is not None and said.error:
        return "failed", said.error
    if place.reason == "cancelled" or (said is not None and said.stopped):
        return "planned", None
    # where only Slurm's state tells the cause, the log's last line is about something else
    told = bool(place.reason) and classify("", place.said).kind == place.reason
    telling = place.said if told else ""
    ended = f"({place.ended})" if place.ended else ""
    why = " ".join(filter(None, (telling, ended)))
    if place.reason not in ("", "failed") or telling:
        node = f" on {place.nodes}" if place.reason == "node failed" and place.nodes else ""
        return "failed", f"{place.reason}{node}: {why}" if why else f"{place.reason}{node}"
    if said is None and place.said:
        return "failed", f"its job ended before the run started: {place.said} {ended}".rstrip()
    if place.ended:
        return "failed", f"its job ended, and the run is not done: {place.ended}"
    return "lost", None


def _idle_state(said: RunState | None, place: Placement | None) -> str:
    """The state of a run that is not done and not held by a process on this file system."""
    lives = said is not None and not said.stopped and not said.error
    if place is not None and place.state == "no room":
        return "waiting"
    if place is not None:
        running = place.state == "running" or (place.state == "unknown" and lives)
        return "running" if running else "queued"
    if said is None or said.stopped:
        return "planned"
    if said.error:
        return "failed"
    if said.host != socket.gethostname() and time.time() - said.heartbeat < FRESH_S:
        return "running"
    return "lost"


def tally(statuses: Iterable[RunStatus], paint: Paint = PLAIN) -> str:
    """The number of runs in each state that occurs: ``8 done, 2 running, 4 queued``."""
    counts = Counter(status.word for status in statuses)
    return ", ".join(paint(f"{counts[w]:,} {w}", c) for w, c in COLOURS.items() if counts[w])


def summary(statuses: Sequence[RunStatus], paint: Paint = PLAIN) -> str:
    """The states of runs in one line: ``8 of 14 done, 2 running, 4 queued``."""
    rest = [status for status in statuses if status.state != "done"]
    needed = [status for status in statuses if status.word != "not needed"]
    done = f"{len(statuses) - len(rest):,} of {len(needed):,} done"
    return ", ".join(filter(None, (done, tally(rest, paint))))
