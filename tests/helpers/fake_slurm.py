"""A scheduler in this process in place of Slurm's commands, with a limit on the tasks."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.study.cluster import partitions
from mpdit.study.cluster.partitions import Partition

LIMIT = "AssocMaxSubmitJobLimit"


class FakeSlurm:
    """It accepts ``room`` tasks at once, and runs none of them.

    Attributes:
        tasks: the unfinished tasks: id → name of the job.
        scripts: every script that was accepted, by job id.
        refused: the sizes of the arrays that were refused.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.tasks: dict[str, str] = {}
        self.scripts: dict[str, str] = {}
        self.refused: list[int] = []
        self.records: dict[str, slurm.Ended] = {}
        part = {"PartitionName": "main", "Default": "YES", "MaxTime": "03:00:00"}
        monkeypatch.setattr(partitions, "read", lambda: [Partition(part)])
        monkeypatch.setattr(slurm, "is_available", lambda: True)
        monkeypatch.setattr(slurm, "rehearse", lambda _: None)
        monkeypatch.setattr(slurm, "largest_array", lambda: 1000)
        monkeypatch.setattr(slurm, "submit", self.submit)
        monkeypatch.setattr(slurm, "queue", self.queue)
        monkeypatch.setattr(slurm, "cancel", self.cancel)
        monkeypatch.setattr(slurm, "find_jobs", lambda _: {})
        monkeypatch.setattr(slurm, "accounting", lambda _: self.records)
        monkeypatch.setattr(slurm, "remembered", lambda _: {})
        monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/srun")  # submitit looks for it

    def submit(self, script: Path) -> tuple[str, list[str]]:
        text = script.read_text()
        array = re.search(r"--array=0-(\d+)", text)
        size = int(array[1]) + 1 if array else 1
        if len(self.tasks) + size > self.room:
            self.refused.append(size)
            raise slurm.NoRoomError(f"sbatch: {LIMIT}; Job violates accounting/QOS policy")
        name = re.search(r"--job-name=(\S+)", text)
        assert name is not None
        job = str(len(self.scripts) + 1)
        self.scripts[job] = text
        ids = [f"{job}_{index}" for index in range(size)] if array else [job]
        self.tasks |= dict.fromkeys(ids, name[1])
        return job, []

    def queue(self, names: Collection[str]) -> list[slurm.QueuedTask]:
        return [
            slurm.QueuedTask(task, name, "PENDING", "Priority", "", 0)
            for task, name in self.tasks.items()
            if name in names
        ]

    def cancel(self, ids: Collection[str]) -> None:
        for task in ids:
            del self.tasks[task]

    def end(self, task: str, state: str, nodes: str = "n1", detail: str = "exit 0:1") -> None:
        """Let a task end as Slurm's accounting says."""
        del self.tasks[task]
        self.records[task] = slurm.Ended(state, nodes, detail)
