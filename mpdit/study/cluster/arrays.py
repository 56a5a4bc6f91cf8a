"""Runs as Slurm job arrays: the runs of each task, the tasks of each array, and the sbatch options.

submitit writes the scripts; `submitter` gives them to sbatch.
"""

from __future__ import annotations

import re
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import mul
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor

from mpdit import slurm
from mpdit.errors import ConfigError
from mpdit.grid.resources import NO_LIMIT, Resources
from mpdit.grid.sbatch import OF_SIZE
from mpdit.grid.site import used_variables
from mpdit.study import codesnapshot
from mpdit.study.claims import job_names
from mpdit.study.cluster import partitions
from mpdit.study.studydir import StudyDir

NOTICE_MIN = 10
_OF_NODES = ("memory", "cpus", "gpus", "gpu_type", "nodes", "constraint")
"""The keys that may ask for what no node has."""
UNLIMITED_TIMEOUTS = 1_000_000
"""submitit counts timeouts; `Job` ends a run that makes no progress."""


@dataclass(frozen=True)
class Batch:
    """One job array: tasks with equal resources, ``parallel`` of them at once.

    ``after`` is the index of the batch that it waits for, None where it waits for none.
    """

    resources: Resources
    tasks: tuple[tuple[str, ...], ...]
    parallel: int
    after: int | None = None

    @property
    def minutes(self) -> int:
        """The time limit in minutes."""
        return self.resources.time or NO_LIMIT

    @property
    def stop_s(self) -> int:
        """Seconds between the signal to the tasks and the limit: 30 s to 5 min."""
        return max(30, min(300, 6 * self.minutes))

    @property
    def ranks_per_node(self) -> int:
        """Processes on each node: one a GPU, or one when several runs share a task."""
        return self.resources.gpus or 1 if self.resources.runs_per_job == 1 else 1


def make_batches(
    runs: Mapping[str, Resources], largest: int, max_parallel: int | None = None
) -> list[Batch]:
    """Group runs with equal resources into arrays of at most ``largest`` tasks, in their order.

    Where fewer runs may run at once than there are arrays, some arrays wait for others.

    Args:
        runs: the resources of each run, by name; with a time.
        max_parallel: the number of runs at once over all arrays; by default each run's resources
            limit it.

    Raises:
        ConfigError: when a limit is lower than the number of runs that share a task.
    """
    groups: dict[str, tuple[Resources, list[str]]] = {}
    for name, resources in runs.items():
        asked = resources.model_dump_json(exclude={"device", "utilization", "retry"})
        groups.setdefault(asked, (resources, []))[1].append(name)
    batches: list[Batch] = []
    for resources, names in groups.values():
        size = resources.runs_per_job
        tasks = [tuple(names[i : i + size]) for i in range(0, len(names), size)]
        arrays = [tuple(tasks[i : i + largest]) for i in range(0, len(tasks), largest)]
        own = [Batch(resources, array, len(array)) for array in arrays]
        batches += own if max_parallel else _limited(own, resources.max_parallel, len(batches))
    return _limited(batches, max_parallel)


def _limited(batches: Sequence[Batch], at_once: int | None, first: int = 0) -> list[Batch]:
    """Limit batches to ``at_once`` runs at once; ``first`` is the index of the first batch."""
    if at_once is None or not batches:
        return list(batches)
    widths = [len(batch.tasks[0]) for batch in batches]  # runs in each but the last task
    packed = max(widths)
    if at_once < packed:
        raise ConfigError(f"{packed} runs share a job, so the limit cannot be {at_once}")
    if sum(widths) <= at_once:  # in proportion to their tasks, but at least one
        everything = sum(len(batch.tasks) for batch in batches)
        shares = [
            max(1, min(len(batch.tasks), at_once * len(batch.tasks) // (everything * width)))
            for batch, width in zip(batches, widths, strict=True)
        ]
        while sum(map(mul, shares, widths)) > at_once:
            shares[shares.index(max(shares))] -= 1
        return [replace(b, parallel=share) for b, share in zip(batches, shares, strict=True)]
    lanes = at_once // packed  # in each lane, one array runs after the other
    return [
        replace(
            batch,
            parallel=min(len(batch.tasks), at_once // lanes // width),
            after=first + index - lanes if index >= lanes else None,
        )
        for index, (batch, width) in enumerate(zip(batches, widths, strict=True))
    ]


def check(
    resources: Mapping[str, Resources], max_parallel: int | None = None
) -> tuple[dict[str, Resources], int]:
    """Check with the cluster the jobs that a `Submitter` will submit.

    Returns:
        the resources of each run, with the partition's default time where they have none (submitit
        would take its own); and the largest number of tasks in an array.

    Raises:
        ConfigError: when Slurm would reject a job.
    """
    slurm.check_one_cluster()
    there = partitions.read()
    partitions.check(resources.values(), there)
    timed = {run: partitions.timed(own, there) for run, own in resources.items()}
    batches = make_batches(timed, len(timed), max_parallel)
    for batch in batches:
        try:
            _rehearse(batch)
        except slurm.NoRoomError:
            continue  # the runs wait until there is room
        except ConfigError as error:
            if slurm.has_nodes(batch.resources.partition):  # without nodes, it rejects every job
                raise ConfigError(blamed(str(error), batch.resources)) from None
    return timed, slurm.largest_array()


def _rehearse(batch: Batch) -> None:
    lines = script(replace(batch, tasks=batch.tasks[:1]), "check", Path()).splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    slurm.rehearse([shlex.split(option)[0].replace(r"\\", "\\") for option in options])


def blamed(message: str, resources: Resources) -> str:
    """sbatch's message, preceded by the places where the options in it were written.

    Of a job that fits no node, these are all options on a node's size.
    """
    fits_no_node = "node configuration" in message.lower()
    places = [
        resources.blame(key)
        for key in resources.origins
        if (fits_no_node and key.removeprefix("extra.") in (*_OF_NODES, *OF_SIZE))
        or re.search(
            rf"\b{re.escape(key.removeprefix('extra.').rstrip('s'))}", message, re.IGNORECASE
        )
    ]
    return ": ".join(("; ".join(places), message)) if places else message


def check_path(study: Path) -> None:
    """Check the study's folder, in which Slurm writes the tasks' logs.

    Raises:
        ConfigError: when Slurm or submitit would read a part of the path as a pattern. They would
            need it escaped in two different ways.
    """
    for sign in "%\\":
        if sign in str(study):
            raise ConfigError(
                f"the path {study} has a {sign}, which Slurm replaces in the names of logs. Use "
                "another --results, or --cluster local"
            )


def preview(
    study: StudyDir,
    resources: Mapping[str, Resources],
    max_parallel: int | None,
    code: Path | None,
) -> list[tuple[Batch, str]]:
    """The arrays that a `Submitter` would submit, each with its script.

    Args:
        code: the folder that jobs import mpdit from.

    Raises:
        ConfigError: when Slurm would reject a job.
    """
    check_path(study.path)
    batches = make_batches(*check(resources, max_parallel), max_parallel)
    names = job_names(new_job_name(study), len(batches))
    claim = study.jobs / "CLAIM"
    after = ([] if batch.after is None else [names[batch.after]] for batch in batches)
    return [
        (batch, script(batch, name, claim, jobs, code))
        for batch, name, jobs in zip(batches, names, after, strict=True)
    ]


def notice_batch(resources: Resources) -> Batch:
    """The batch of the small job: with the partition and setup of the other jobs, not their size.

    It has one GPU where Slurm rejects a job without a GPU.
    """
    where = {"partition", "account", "qos", "constraint", "setup", "python"}
    kept = Resources(
        time=min(NOTICE_MIN, resources.time or NOTICE_MIN),
        extra={name: value for name, value in resources.extra.items() if name not in OF_SIZE},
        **resources.model_dump(include=where),
    )
    batch = Batch(kept, ((),), 1)
    if resources.gpus:
        try:
            _rehearse(batch)
        except ConfigError:
            one = {"gpus": 1, "gpu_type": resources.gpu_type}
            return replace(batch, resources=kept.model_copy(update=one))
    return batch


def new_job_name(study: StudyDir) -> str:
    """A name for a submission's jobs that no other submission has."""
    return f"{study.name}-{datetime.now():%m%d%H%M%S}-{secrets.token_hex(4)}"


def script(
    batch: Batch, name: str, claim: Path, after: Sequence[str] = (), code: Path | None = None
) -> str:
    """The script for sbatch; the job imports mpdit from ``code``.

    submitit 1.5 has no public way to make a script without submitting it, so this function uses
    private methods. No other code does.
    """
    executor = _executor(batch, name, claim, after, code)
    if len(batch.tasks) > 1:
        executor.parameters["map_count"] = len(batch.tasks)
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return text


def _python(code: Path | None, python: str) -> str:
    """The command that starts ``python`` in a job.

    USR2 is ignored until Python handles it; before that it would end the job for good.
    """
    commands = ['trap "" USR2', *codesnapshot.shell_commands(code), 'exec "$0" "$@"']
    return f"sh -c {shlex.quote('; '.join(commands))} {python}"


def _executor(
    batch: Batch,
    name: str,
    claim: Path,
    after: Sequence[str] = (),
    code: Path | None = None,
) -> SlurmExecutor:
    """The executor that submits a batch; ``after`` are the jobs that have to end first."""
    resources = batch.resources
    options = {option: value for option, value in resources.extra.items() if value is not False}
    if after:
        own = str(options.get("dependency", ""))
        options["dependency"] = ",".join(filter(None, (own, f"afterany:{':'.join(after)}")))
    python = _python(code, resources.python or shlex.quote(sys.executable))
    executor = SlurmExecutor(claim, max_num_timeout=UNLIMITED_TIMEOUTS, python=python)
    gpus = f"{resources.gpu_type}:{resources.gpus}" if resources.gpu_type else resources.gpus
    asked: dict[str, Any] = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "mem": resources.memory,
        "gpus_per_node": gpus if resources.gpus else None,
        "cpus_per_task": resources.cpus and max(1, resources.cpus // batch.ranks_per_node),
    }
    srun = [] if batch.ranks_per_node * (resources.nodes or 1) == 1 else ["--kill-on-bad-exit=1"]
    if asked["cpus_per_task"]:  # since Slurm 22.05, srun does not inherit it from sbatch
        srun.append(f"--cpus-per-task={asked['cpus_per_task']}")
    if "export" in options:  # it is for the script; srun would pass on only these
        srun.append("--export=ALL")
    setup = [f"export {name}={shlex.quote(value)}" for name, value in used_variables().items()]
    setup += ["set -e", *resources.setup, "set +e"] if resources.setup else []
    executor.update_parameters(
        **{key: _escaped(value) for key, value in asked.items() if value is not None},
        setup=setup or None,
        wckey=None,  # else submitit sets its own
        job_name=name,
        time=batch.minutes,
        nodes=resources.nodes or 1,
        ntasks_per_node=batch.ranks_per_node,
        signal_delay_s=batch.stop_s,
        array_parallelism=batch.parallel,
        stderr_to_stdout=True,
        srun_args=srun,
        additional_parameters={"requeue": True} | {k: _escaped(v) for k, v in options.items()},
    )
    return executor


def _escaped(value: Any) -> Any:
    """Escape a text for sbatch, which reads a backslash as an escape even in single quotes."""
    return value.replace("\\", r"\\") if isinstance(value, str) else value
