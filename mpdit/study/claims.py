"""Claims: the runs that a submission has not finished, in files below a study's ``.jobs/``.

==================  ===============================================================================
.jobs/*.jsonl       one claim a submission: ``{cluster, host, runs, …}``, then ``{finished}`` for
                    each run that has ended. Two kinds of claim:
                    local: locked (flock) by its pool, and live while the pool, process ``{pid}``,
                    lives. ``{finished, reason}``: the run could not start, and its folder could
                    not take the reason; then the claim stays until the next submission
                    slurm: live until all its runs are finished. The first row has ``job_name``;
                    ``{array, at, tasks: [[run, …], …]}`` is written before each sbatch, and
                    ``{array, job}`` after it: job is null when Slurm did not accept the array
.jobs/*/            beside a Slurm claim: submitit's scripts, logs and pickles; <run>.exit, the exit
                    status of a run that its job has finished, means the same as ``finished``;
                    `cancel` also writes it for single runs of a pool or a shared job, which then
                    stops the run or does not start it; ``cancelled``, the runs whose tasks `cancel`
                    has cancelled
==================  ===============================================================================
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from mpdit.disk import lease as leases
from mpdit.disk.files import read_rows, warn_once
from mpdit.text import count

UNREADABLE = "unreadable"
"""The cluster of a claim that only another user can read."""


@dataclass(frozen=True)
class JobArray:
    """What one sbatch submits: the runs of each of its tasks.

    ``name`` finds it in the queue; ``job`` is Slurm's id, None before sbatch has answered; ``at``
    is the time of submission in seconds.
    """

    name: str
    tasks: tuple[tuple[str, ...], ...]
    job: str | None = None
    at: float = 0.0

    @property
    def index(self) -> int:
        """Its number within its submission."""
        return int(self.name.rpartition("-")[2])

    def task_ids(self) -> dict[str, tuple[str, ...]]:
        """Slurm's id of every task (``JOB_INDEX``, or ``JOB`` for a single task) → its runs."""
        if self.job is None:
            return {}
        if len(self.tasks) == 1:
            return {self.job: self.tasks[0]}
        return {f"{self.job}_{index}": runs for index, runs in enumerate(self.tasks)}


@dataclass(frozen=True)
class Claim:
    """A submission, and those of its runs that have not ended.

    ``pid`` is the pool of a local submission, on ``host``; 0 for Slurm.
    """

    file: Path
    cluster: str
    host: str
    pid: int
    runs: frozenset[str]
    arrays: tuple[JobArray, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why the processes of some runs could not start, by run."""

    @property
    def folder(self) -> Path:
        """The folder of submitit's files and of ``<run>.exit`` (see above)."""
        return self.file.with_suffix("")

    def task_log(self, task: str) -> Path:
        """The log of a task, given its id: the output of submitit and of Slurm."""
        return self.folder / f"{task}_0_log.out"

    def pickles(self, array: JobArray, job: str) -> list[Path]:
        """The files without which the tasks of an array, submitted as ``job``, cannot begin."""
        ids = replace(array, job=job).task_ids()
        return [self.folder / f"{task}_submitted.pkl" for task in ids]

    def task_of(self, run: str) -> str | None:
        """The id of the task that the run is in."""
        ids = (array.task_ids().items() for array in self.arrays)
        return next((task for task, runs in chain.from_iterable(ids) if run in runs), None)

    def exit_file(self, run: str) -> Path:
        """The file whose existence releases a run (see above)."""
        return self.folder / f"{run}.exit"

    @property
    def cancelled(self) -> Path:
        """The file that names the runs whose tasks were cancelled; they count as ended at once."""
        return self.folder / "cancelled"

    def cancelled_runs(self) -> frozenset[str]:
        """The runs that the file `cancelled` names; none before a task was cancelled."""
        try:
            return frozenset(self.cancelled.read_text().split())
        except FileNotFoundError:
            return frozenset()

    @property
    def is_live(self) -> bool:
        """Whether it may still start runs. Without locks, a local claim lives as its pool does."""
        if self.cluster != "local":
            return bool(self.runs) or self.cluster == UNREADABLE
        held = _is_held(self.file)
        return self.is_here and leases.process_exists(self.pid) if held is None else held

    @property
    def is_here(self) -> bool:
        return self.cluster == "local" and self.host == socket.gethostname()

    @property
    def is_mine(self) -> bool:
        """Whether this user has submitted it: Slurm may hide the jobs of others (PrivateData)."""
        try:
            return self.file.stat().st_uid == os.getuid()
        except FileNotFoundError:  # it has just been dropped
            return False


def job_names(job_name: str, arrays: int) -> list[str]:
    """The name in the queue of each array of a submission."""
    return [f"{job_name}-{index}" for index in range(arrays)]


class _Tasks(TypedDict):
    tasks: list[list[str]]


class _ClaimRow(TypedDict, total=False):
    """The keys that a row of a claim may have."""

    cluster: str
    host: str
    pid: int
    runs: list[str]
    job_name: str
    arrays: list[_Tasks]
    finished: str
    reason: str
    array: int
    at: float
    tasks: list[list[str]]
    job: str | None


_ROW = TypeAdapter(_ClaimRow)


def fits(kind: TypeAdapter[Any], value: Any) -> bool:
    """Whether a value from a file has a type; keys that a newer version adds are ignored."""
    try:
        kind.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def read_claim(file: Path) -> Claim:
    """A submission's claim, without its damaged rows; another user's may be unreadable."""
    try:
        written = read_rows(file)
    except PermissionError as error:
        warn_once(f"{file} cannot be read ({error.strerror}); what it claims is unknown")
        written = [{"cluster": UNREADABLE}]
    rows = [row for row in written if fits(_ROW, row)]
    if damaged := len(written) - len(rows):
        warn_once(f"{file}: {count(damaged, 'row')} damaged and counted as absent")
    merged = {key: value for row in rows for key, value in row.items()}
    finished = {row["finished"] for row in rows if "finished" in row}
    finished |= {exit_file.stem for exit_file in file.with_suffix("").glob("*.exit")}
    arrays = dict(enumerate(merged.get("arrays", ())))  # version 0.1: all in the first row
    arrays |= {row["array"]: row for row in rows if "tasks" in row}
    jobs = {row["array"]: row["job"] for row in rows if "job" in row}
    refused = {index for index, job in jobs.items() if job is None}
    name = merged.get("job_name", "")
    taken = [
        JobArray(
            f"{name}-{index}",
            tuple(map(tuple, array["tasks"])),
            jobs.get(index),
            array.get("at", 0.0),
        )
        for index, array in sorted(arrays.items())
        if index not in refused
    ]
    runs = {run for array in taken for task in array.tasks for run in task}
    return Claim(
        file=file,
        cluster=merged.get("cluster", "local"),
        host=merged.get("host", ""),
        pid=merged.get("pid", 0),
        runs=frozenset(runs or merged.get("runs", ())) - finished,
        reasons={row["finished"]: row["reason"] for row in rows if "reason" in row},
        arrays=tuple(taken),
    )


def _is_held(file: Path) -> bool | None:
    """Whether a process holds a claim; None on a file system without locks."""
    try:
        with file.open("rb") as handle:
            granted = leases.lock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    return None if granted is None else not granted
