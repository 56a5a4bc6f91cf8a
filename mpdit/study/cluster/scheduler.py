"""What Slurm says of a study's claimed runs: one squeue for all, then one sacct for the gone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mpdit import slurm
from mpdit.errors import ConfigError
from mpdit.study.cluster.endings import classify
from mpdit.study.runprocess import tail
from mpdit.study.studydir import Claim

ASK_S = 30
"""A screen that is redrawn asks Slurm so often, and no oftener."""


@dataclass(frozen=True)
class Placement:
    """Where a claimed run's task is: ``waiting``, ``running``, ``gone``, or ``unknown`` when Slurm
    could not be asked or has not been yet.

    ``reason`` says why it waits, or of one that is gone the kind of its end (`reasons.Cause`), for
    which ``said`` is the line of its log. ``task`` is its id, ``elapsed`` seconds.
    """

    state: str
    task: str = ""
    reason: str = ""
    nodes: str = ""
    elapsed: float | None = None
    said: str = ""


UNKNOWN = Placement("unknown")


class Scheduler:
    """Slurm, asked about a study at most every ``every_s`` seconds.

    Attributes:
        silence: why it has not answered the last time, '' when it has.
    """

    def __init__(self, every_s: float = 0) -> None:
        self.every_s = every_s
        self.silence = ""
        self._asked = float("-inf")
        self._known: dict[str, Placement] = {}
        self._names: frozenset[str] = frozenset()

    def look(self, claims: Iterable[Claim]) -> dict[str, Placement]:
        """Run → its task's place, for the runs of the claims on Slurm."""
        found = [claim for claim in claims if claim.cluster == "slurm"]
        if not found:
            return {}
        if time.monotonic() - self._asked >= self.every_s:
            self._ask(found)
            self._asked = time.monotonic()
        # those of an array that has no job yet are unknown
        places = {run: UNKNOWN for claim in found for run in claim.runs}
        for claim in found:
            for array in claim.arrays:
                for task, runs in array.task_ids().items():
                    # what was submitted since the last look is not gone
                    known = array.name in self._names and not self.silence and claim.is_mine
                    gone = Placement("gone", task) if known else replace(UNKNOWN, task=task)
                    place = self._known.get(task, gone)
                    places |= dict.fromkeys(set(runs) & claim.runs, place)
        return places

    def _ask(self, claims: list[Claim]) -> None:
        arrays = [array for claim in claims for array in claim.arrays if array.job is not None]
        try:
            queued = slurm.queue([array.name for array in arrays])
        except ConfigError as error:
            self.silence = str(error)  # what was known stays known
            return
        self.silence = ""
        self._names = frozenset(array.name for array in arrays)
        self._known = {task.id: _placed(task) for task in queued}
        gone = {
            task: claim
            for claim in claims
            for array in claim.arrays
            for task, runs in array.task_ids().items()
            if task not in self._known and claim.is_mine and not claim.runs.isdisjoint(runs)
        }
        if gone:
            self._explain(gone)

    def _explain(self, gone: dict[str, Claim]) -> None:
        """How they ended, by sacct where it works, and by their last words."""
        try:
            records = slurm.accounting({task.partition("_")[0] for task in gone}) or {}
        except ConfigError:
            records = {}
        for task, claim in gone.items():
            record = records.get(task)
            # requeued jobs append to one log
            said = tail(claim.task_log(task)).rpartition("Starting with JobEnvironment")[2]
            cause = classify(record.state if record else "", said)
            nodes = record.nodes if record else ""
            self._known[task] = Placement("gone", task, cause.kind, nodes, said=cause.line)


def _placed(task: slurm.QueuedTask) -> Placement:
    waiting = task.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
    return Placement(
        "waiting" if waiting else "running",
        task.id,
        reason=task.reason if waiting else "",
        nodes=task.nodes,
        elapsed=None if waiting else task.elapsed_s,
    )
