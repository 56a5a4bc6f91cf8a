"""The Slurm tasks of a study's claimed runs: one squeue for all, one sacct for ended tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from mpdit import slurm
from mpdit.errors import ConfigError
from mpdit.study.claims import Claim
from mpdit.study.cluster.endings import classify
from mpdit.study.runprocess import tail

ASK_S = 30
"""Seconds between two queries of a screen that is redrawn."""


@dataclass(frozen=True)
class Placement:
    """The task of a claimed run: ``waiting``, ``running``, ``gone``, or ``unknown`` while Slurm has
    not answered.

    For a waiting task, ``reason`` is Slurm's reason. For a gone task, ``reason`` is the kind of its
    end (`endings.Cause`), ``said`` the line of its log, and ``ended`` the state in Slurm's record.
    ``task`` is its id, ``elapsed`` seconds, ``since`` the time of its submission.
    """

    state: str
    task: str = ""
    reason: str = ""
    nodes: str = ""
    elapsed: float | None = None
    said: str = ""
    ended: str = ""
    since: float = 0.0


class Scheduler:
    """Asks Slurm about a study, at most every ``every_s`` seconds.

    Attributes:
        silence: why Slurm did not answer the last query, '' when it did.
    """

    def __init__(self, every_s: float = 0) -> None:
        self.every_s = every_s
        self.silence = ""
        self._asked = float("-inf")
        self._known: dict[str, Placement] = {}
        self._names: frozenset[str] = frozenset()

    def look(self, claims: Iterable[Claim]) -> dict[str, Placement]:
        """The task of each run that is claimed for Slurm, by the run's name."""
        found = [claim for claim in claims if claim.cluster == "slurm"]
        if not found:
            return {}
        if time.monotonic() - self._asked >= self.every_s:
            self._ask(found)
            self._asked = time.monotonic()
        # runs of an array without a job id stay unknown
        places = {run: Placement("unknown") for claim in found for run in claim.runs}
        for claim in found:
            for array in claim.arrays:
                # an array submitted since the last query is not gone
                asked = array.name in self._names and not self.silence and claim.is_mine
                absent = Placement("gone" if asked else "unknown")
                for task, runs in array.task_ids().items():
                    place = self._known.get(task) or replace(absent, task=task)
                    place = replace(place, since=array.at)
                    places |= dict.fromkeys(claim.runs.intersection(runs), place)
        return places

    def _ask(self, claims: list[Claim]) -> None:
        arrays = [array for claim in claims for array in claim.arrays if array.job is not None]
        try:
            queued = slurm.queue([array.name for array in arrays])
        except ConfigError as error:
            self.silence = str(error)  # the last answer stays valid
            return
        self.silence = ""
        self._names = frozenset(array.name for array in arrays)
        self._known = {task.id: _placed(task) for task in queued}
        gone = {
            task: (claim, runs)
            for claim in claims
            for array in claim.arrays
            for task, runs in array.task_ids().items()
            if task not in self._known and claim.is_mine and not claim.runs.isdisjoint(runs)
        }
        if gone:
            self._explain(gone)

    def _explain(self, gone: dict[str, tuple[Claim, tuple[str, ...]]]) -> None:
        """Find out how tasks ended: from sacct where it works, the controller, and their logs.

        Slurm may forget a task that never started: the claim names those that were cancelled.
        """
        records: dict[str, slurm.Ended] = {}
        for ask in (slurm.accounting, slurm.remembered):
            jobs = {task.partition("_")[0] for task in gone if task not in records}
            with suppress(ConfigError):
                records |= (ask(jobs) if jobs else None) or {}
        cancelled = {claim.file: claim.cancelled_runs() for claim, _ in gone.values()}
        for task, (claim, runs) in gone.items():
            record = records.get(task, slurm.Ended(state="", nodes=""))
            # all allocations of a requeued job append to one log
            said = tail(claim.task_log(task)).rpartition("Starting with JobEnvironment")[2]
            kind, line = classify(record.state, said, record.detail)
            if not record.state and not kind and not cancelled[claim.file].isdisjoint(runs):
                kind = "cancelled"
            ended = ", ".join(filter(None, (record.state, record.detail)))
            self._known[task] = Placement("gone", task, kind, record.nodes, said=line, ended=ended)


def _placed(task: slurm.QueuedTask) -> Placement:
    waiting = task.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
    return Placement(
        "waiting" if waiting else "running",
        task.id,
        reason=task.reason if waiting else "",
        nodes=task.nodes,
        elapsed=None if waiting else task.elapsed_s,
    )
