"""Runs as Slurm job arrays: which share a task, which tasks an array, and what sbatch is told.

submitit writes the scripts and submits them, one sbatch an array.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import clean_env

from mpdit.config import ConfigError
from mpdit.study import slurm
from mpdit.study.folder import JobArray, StudyDir, job_names
from mpdit.study.job import Job
from mpdit.study.notice import notify
from mpdit.study.resources import Resources
from mpdit.study.rundir import append_row

NO_LIMIT = 365 * 24 * 60
"""Minutes: submitit always names a limit."""
NOTICE_MIN = 10
UNLIMITED_TIMEOUTS = 1_000_000
"""submitit counts them; `Job` ends what gets nowhere."""
_PYTHON = f"""sh -c 'trap "" USR2; exec "$0" "$@"' {shlex.quote(sys.executable)}"""
"""The signal that comes before Python can handle it would end the job for good."""


@dataclass(frozen=True)
class Batch:
    """What one sbatch submits: tasks with the same resources, ``parallel`` of them at once."""

    resources: Resources
    tasks: tuple[tuple[str, ...], ...]
    parallel: int

    @property
    def minutes(self) -> int:
        """The time limit."""
        return self.resources.time or NO_LIMIT

    @property
    def stop_s(self) -> int:
        """How long before the limit the tasks are told: 30 s to 5 min."""
        return max(30, min(300, 6 * self.minutes))

    @property
    def ranks_per_node(self) -> int:
        """Processes on each node: one a GPU, unless several runs share the node's GPUs."""
        return self.resources.gpus or 1 if self.resources.runs_per_job == 1 else 1


def make_batches(
    runs: Mapping[str, Resources], largest: int, max_parallel: int | None = None
) -> list[Batch]:
    """Group the runs by their resources, in their order, into arrays of at most ``largest`` tasks.

    Args:
        runs: the resources of each run, by name; with a time.
        max_parallel: runs at once, over all arrays; by default what the resources say.
    """
    groups: dict[str, tuple[Resources, list[str]]] = {}
    for name, resources in runs.items():
        asked = resources.model_dump_json(exclude={"device", "utilization"})
        groups.setdefault(asked, (resources, []))[1].append(name)
    chunks = []
    for resources, names in groups.values():
        size = resources.runs_per_job
        tasks = [tuple(names[i : i + size]) for i in range(0, len(names), size)]
        chunks += [
            (resources, tuple(tasks[i : i + largest]), len(tasks))
            for i in range(0, len(tasks), largest)
        ]
    everything = sum(len(tasks) for _, tasks, _ in chunks)
    return [
        Batch(
            resources,
            tasks,
            _share(max_parallel, everything, resources, len(tasks))
            if max_parallel
            else _share(resources.max_parallel, group, resources, len(tasks)),
        )
        for resources, tasks, group in chunks
    ]


def _share(at_once: int | None, of: int, resources: Resources, tasks: int) -> int:
    """How many of an array's tasks may run at once, when so many runs may in ``of`` tasks."""
    if at_once is None:
        return tasks
    return max(1, min(tasks, at_once * tasks // (of * resources.runs_per_job)))


def check(resources: Mapping[str, Resources]) -> tuple[dict[str, Resources], int]:
    """Hold what runs ask for against what the cluster has.

    Returns:
        the resources of each run with a time, the partition's default where they name none, which
        submitit would not know of; and how many tasks an array may have.

    Raises:
        ConfigError: when Slurm would refuse one.
    """
    slurm.check_request(resources.values())
    untimed = {own.partition for own in resources.values() if own.time is None}
    defaults = {partition: slurm.default_minutes(partition) for partition in untimed}
    timed = {
        run: own if own.time else own.model_copy(update={"time": defaults[own.partition]})
        for run, own in resources.items()
    }
    for batch in make_batches(timed, len(timed)):
        lines = _script(replace(batch, tasks=batch.tasks[:1]), "check", Path()).splitlines()
        options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
        try:
            slurm.rehearse([shlex.split(option)[0] for option in options])
        except ConfigError:
            if slurm.has_nodes(batch.resources.partition):  # else it would refuse any job
                raise
    return timed, slurm.largest_array()


def preview(
    study: StudyDir, resources: Mapping[str, Resources], max_parallel: int | None
) -> list[tuple[Batch, str]]:
    """The arrays that `submit_arrays` would submit, each with its script.

    Raises:
        ConfigError: when Slurm would refuse one.
    """
    batches = make_batches(*check(resources), max_parallel)
    names = job_names(_job_name(study), len(batches))
    claim = study.jobs / "CLAIM"
    return [
        (batch, _script(batch, name, claim)) for batch, name in zip(batches, names, strict=True)
    ]


def submit_arrays(
    study: StudyDir,
    resources: Mapping[str, Resources],
    largest: int,
    command: Sequence[str],
    max_parallel: int | None,
    on_end: str | None,
) -> tuple[JobArray, ...]:
    """Claim runs, and submit them, one sbatch an array. Call under the study's lock.

    Args:
        resources, largest: as `check` returns them.
        on_end: a shell command for a job of its own, after all of them.

    Raises:
        ConfigError: with sbatch's words, when it refuses an array; those before it stay submitted.
    """
    batches = make_batches(resources, largest, max_parallel)
    job_name = _job_name(study)
    arrays = [{"tasks": batch.tasks} for batch in batches]
    file, held = study.new_claim("slurm", list(resources), job_name=job_name, arrays=arrays)
    held.close()
    claim = file.with_suffix("")
    submitted: list[JobArray] = []
    names = job_names(job_name, len(batches))
    for index, (batch, name) in enumerate(zip(batches, names, strict=True)):
        try:
            job = _sbatch(batch, name, claim, command)
        except FailedJobError as error:
            for run in (run for other in batches[index:] for runs in other.tasks for run in runs):
                append_row(file, {"finished": run})
            begun = sum(len(array.tasks) for array in submitted)
            there = f" ({begun:,} tasks were submitted before that)" if begun else ""
            raise ConfigError(f"sbatch refuses{there}: {str(error).strip()}") from None
        append_row(file, {"array": index, "job": job})
        submitted.append(JobArray(name, batch.tasks, job))
    if on_end is not None:
        after = ":".join(str(array.job) for array in submitted)
        executor = _executor(_notice_batch(batches[0].resources), f"{job_name}-end", claim)
        executor.update_parameters(dependency=f"afterany:{after}")
        with clean_slurm_env():
            executor.submit(notify, study.path, list(resources), on_end)
    return tuple(submitted)


def _notice_batch(resources: Resources) -> Batch:
    """A small job, where the others were allowed."""
    kept = resources.model_dump(include={"partition", "account", "qos"})
    return Batch(Resources(time=NOTICE_MIN, **kept), ((),), 1)


def _job_name(study: StudyDir) -> str:
    return f"{study.name}-{datetime.now():%m%d%H%M%S}-{os.getpid()}"


def _script(batch: Batch, name: str, claim: Path) -> str:
    """What sbatch is given."""
    executor = _executor(batch, name, claim)
    if len(batch.tasks) > 1:
        executor.parameters["map_count"] = len(batch.tasks)
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return text


def _sbatch(batch: Batch, name: str, claim: Path, command: Sequence[str]) -> str:
    """Submit it; Slurm's id of the job."""
    job = Job(claim, command, batch.resources.runs_per_job, batch.minutes, batch.stop_s)
    with clean_slurm_env():
        jobs = _executor(batch, name, claim).map_array(job, batch.tasks)
    return str(jobs[0].job_id).split("_", maxsplit=1)[0]


@contextmanager
def clean_slurm_env() -> Iterator[None]:
    """The environment without what an enclosing job has put there; which cluster is meant
    stays."""
    conf = {
        name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ
    }
    with clean_env():
        os.environ.update(conf)
        yield


def _executor(batch: Batch, name: str, claim: Path) -> SlurmExecutor:
    resources = batch.resources
    executor = SlurmExecutor(claim, max_num_timeout=UNLIMITED_TIMEOUTS, python=_PYTHON)
    asked: dict[str, Any] = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "mem": resources.memory,
        "gpus_per_node": resources.gpus or None,
        "cpus_per_task": resources.cpus and max(1, resources.cpus // batch.ranks_per_node),
    }
    srun = [] if batch.ranks_per_node * (resources.nodes or 1) == 1 else ["--kill-on-bad-exit=1"]
    if asked["cpus_per_task"]:  # srun no longer takes it from sbatch, from 22.05 on
        srun.append(f"--cpus-per-task={asked['cpus_per_task']}")
    executor.update_parameters(
        **{key: value for key, value in asked.items() if value is not None},
        job_name=name,
        time=batch.minutes,
        nodes=resources.nodes or 1,
        ntasks_per_node=batch.ranks_per_node,
        signal_delay_s=batch.stop_s,
        array_parallelism=batch.parallel,
        stderr_to_stdout=True,
        srun_args=srun,
        additional_parameters={"requeue": True}
        | {option: value for option, value in resources.extra.items() if value is not False},
    )
    return executor
