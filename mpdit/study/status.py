"""Where every run of a study stands, by what is on disk."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpdit.study.folder import StudyDir
from mpdit.study.plan import PlannedRun
from mpdit.study.rundir import RunDir, RunState

WORDS = ("done", "running", "queued", "failed", "lost", "interrupted", "planned")
ACTIVE = ("running", "queued")
FRESH_S = 120
"""A heartbeat younger than this, on another host, is a run that lives."""


@dataclass(frozen=True)
class RunStatus:
    """One run: ``step`` of ``steps`` of its ``stage``; rate in images/s, eta in seconds."""

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
    """From its last start to its last word."""
    error: str | None = None
    stopped: str | None = None
    in_grid: bool = True

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def word(self) -> str:
        """The state as a person is told it: a run stopped half-way is ``interrupted``."""
        begun = self.step > 0 or self.stage != "train"
        return "interrupted" if self.state == "planned" and begun else self.state

    def row(self) -> dict[str, Any]:
        return asdict(self)


def survey(study: StudyDir, names: Iterable[str] | None = None) -> list[RunStatus]:
    """Every run of a study, or those named, in the order of study.json.

    Raises:
        ConfigError: when the folder is no study.
    """
    claimed = {run for claim in study.claims() for run in claim.runs}
    chosen = None if names is None else set(names)
    return [
        read_status(study.run(entry["name"]), entry, entry["name"] in claimed)
        for entry in study.table["runs"]
        if chosen is None or entry["name"] in chosen
    ]


def unclaimed(study: StudyDir, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Those of the planned runs that are neither done, running nor queued."""
    if not (study.path / "study.json").exists():
        return list(runs)
    busy = {status.id for status in survey(study) if status.is_active or status.state == "done"}
    return [run for run in runs if run.id not in busy]


def read_status(run: RunDir, entry: dict[str, Any], claimed: bool) -> RunStatus:
    """One run: done, then running here, queued by a live submission, failed, running elsewhere,
    lost, and else planned."""
    common = {
        "name": entry["name"],
        "id": entry["id"],
        "variant": entry["variant"],
        "seed": entry.get("seed"),
        "in_grid": entry.get("in_grid", True),
    }
    steps = entry.get("steps", 0)
    try:
        files = os.listdir(run.path)  # noqa: PTH208 - one look, instead of one for each file that is not there
    except FileNotFoundError:
        files = []
    done = "evaluation.jsonl" in files and run.is_done()
    # Whoever has let go of a run has said its last word: look at the lock before the words.
    leased = not done and "lock" in files and run.is_leased()
    said = run.state() if "state.json" in files else None
    if said is not None and said.stage == "done" and not done:
        done = run.is_done()
    if done:
        seconds = None if said is None else said.heartbeat - said.started
        return RunStatus(
            state="done", stage="done", step=steps, steps=steps, seconds=seconds, **common
        )
    state = "running" if leased else _idle_state(said, claimed)
    if said is None:
        return RunStatus(state=state, stage="train", step=0, steps=steps, **common)
    running = state == "running"
    return RunStatus(
        state=state,
        stage=said.stage,
        step=said.step,
        steps=said.steps or steps,
        rate=said.rate if running else None,
        eta=said.eta if running else None,
        loss=said.loss,
        seconds=said.heartbeat - said.started,
        error=said.error if state == "failed" else None,
        stopped=said.stopped if state == "planned" else None,
        **common,
    )


def _idle_state(said: RunState | None, claimed: bool) -> str:
    """The state of a run that is neither done nor held by a process on this file system."""
    if claimed:
        return "queued"
    if said is None or said.stopped:
        return "planned"
    if said.error:
        return "failed"
    if said.host != socket.gethostname() and time.time() - said.heartbeat < FRESH_S:
        return "running"
    return "lost"


def counts(statuses: Iterable[RunStatus]) -> dict[str, int]:
    """How many are in each state, in a person's words; only those that occur."""
    counter = Counter(status.word for status in statuses)
    return {word: counter[word] for word in WORDS if counter[word]}
