"""Submitting: what the grid wants against what is on disk, and who is to do what is missing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mpdit import slurm
from mpdit.disk.rundir import append_row
from mpdit.errors import ConfigError, nearest
from mpdit.grid.grid import load_grid
from mpdit.grid.plan import Plan, PlannedRun, make_plan
from mpdit.grid.resources import Resources
from mpdit.study import pool
from mpdit.study.reconcile import reconcile
from mpdit.study.status import TO_DO, RunStatus, missing, survey
from mpdit.study.studydir import JobArray, StudyDir

CLUSTERS = ("auto", "slurm", "local")


@dataclass(frozen=True)
class Submission:
    """What a submission did: the runs it started, the others as they were, and its pool."""

    study: StudyDir
    runs: tuple[str, ...]
    """The runs that were asked for, by folder."""
    started: tuple[RunStatus, ...]
    left: tuple[RunStatus, ...]
    new: tuple[str, ...] = ()
    """Runs that the grid did not have when it was last submitted, by folder."""
    dropped: tuple[str, ...] = ()
    """Runs that it had then, and no longer has."""
    parallel: int = 0
    arrays: tuple[JobArray, ...] = ()
    """What was submitted to Slurm."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def stop(self) -> None:
        """Ask the pool to stop; its runs keep their state."""
        if self.process is not None:
            self.process.terminate()

    def is_working(self) -> bool:
        """Whether the pool lives."""
        return self.process is not None and self.process.poll() is None


@dataclass(frozen=True)
class Execution:
    """How runs are executed.

    Attributes:
        cluster: ``slurm`` or ``local``.
        max_parallel: runs at once; by default as the resources say, or one a GPU or core.
        on_end: a shell command for when all of them have ended.
        command: executes one run, given its folder as last argument.
    """

    cluster: str = "local"
    max_parallel: int | None = None
    on_end: str | None = None
    command: Sequence[str] = ()

    @property
    def run_command(self) -> list[str]:
        return list(self.command or pool.RUN_COMMAND)


LOCAL = Execution()


def choose_cluster(asked: str, plan: Plan) -> str:
    """``slurm`` or ``local``; ``auto`` is Slurm when the grid says ``slurm:`` and there is sbatch.

    Raises:
        ConfigError: for another name, and for Slurm where it is not.
    """
    if asked not in CLUSTERS:
        hint = nearest(asked, CLUSTERS)
        raise ConfigError(f"--cluster {asked!r} is not one of {', '.join(CLUSTERS)}.{hint}")
    if asked == "auto":
        named = any(run.resources != Resources() for run in plan.runs)
        return "slurm" if named and slurm.is_available() else "local"
    if asked == "slurm" and not slurm.is_available():
        raise ConfigError("there is no Slurm here (no sbatch): use --cluster local")
    return asked


def check_plan(plan: Plan, results: Path) -> None:
    """Whether a plan could run here, before anything is written.

    Raises:
        ConfigError: when the results folder cannot be written, or data, an extractor's weights or
            a reference file is missing.
    """
    from mpdit.data.datasets import check_available
    from mpdit.data.preflight import check_evaluable

    folder = (results / plan.study).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"cannot write results to {results / plan.study}: {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write results to {results / plan.study}: {folder} is read-only")
    configs = [run.config for run in plan.runs]
    for data in dict.fromkeys(config.data for config in configs):
        check_available(data)
    judged = {(config.data, config.evaluate, config.sample.count): config for config in configs}
    try:
        for config in judged.values():
            check_evaluable(config)
    except ConfigError:  # a finished run has been evaluated: it needs nothing any more
        if missing(StudyDir((results / plan.study).absolute()), plan.runs):
            raise


def submit(
    plan: Plan,
    results: Path,
    how: Execution = LOCAL,
    *,
    whole: Plan | None = None,
    grid_name: str = "",
    states: Collection[str] | None = None,
    adjust: Callable[[Sequence[PlannedRun]], Sequence[PlannedRun]] | None = None,
) -> Submission:
    """Bring a study's folder in line with its plan, and start what is missing.

    Done runs are skipped; running and claimed ones are left alone; the others go on from what is on
    disk. Two submitters at once take turns, and the second finds the first one's claims.

    Args:
        whole: the study's whole plan, where ``plan`` is only a part of it.
        grid_name: the grid's file, for study.json.
        states: submit only runs in one of these states.
        adjust: the runs that are to be submitted → the same ones with other resources.

    Raises:
        ConfigError: when the folder cannot be written, data is missing, or Slurm would refuse a
            run that is to be submitted; nothing is written then. When sbatch refuses all the same,
            what it took before stays submitted.
    """
    check_plan(plan, results)
    study = StudyDir((results / plan.study).absolute())
    try:
        wanted = _missing(study, plan, states)
        if adjust is not None:
            wanted = adjust(wanted)
        largest = 0
        if how.cluster == "slurm" and wanted:
            wanted, largest = _check_resources(wanted, how)
        study.path.mkdir(parents=True, exist_ok=True)
        with study.lock():
            new, dropped = StudyDir(study.path).compare(whole or plan)
            names = study.write_table(whole or plan, grid_name or plan.grid.source.name)
            study = StudyDir(study.path)  # it holds on to the table that it has read
            runs = {names[run.id]: run for run in wanted}
            statuses = survey(study, (names[run.id] for run in plan.runs))
            # another submitter may have been here since the checks
            todo = [s for s in statuses if s.name in runs and s.state in (states or TO_DO)]
            left = tuple(s for s in statuses if s not in todo)
            asked = tuple(status.name for status in (todo if states else statuses))
            done = Submission(study, asked, tuple(todo), left, tuple(new), tuple(dropped))
            if not todo:
                return done
            for status in todo:
                study.run(status.name).write_config(runs[status.name].config)
            study.drop_dead_claims()
            chosen = {status.name: runs[status.name] for status in todo}
            if how.cluster == "slurm":
                return replace(done, arrays=_start_arrays(study, chosen, largest, how))
            parallel, process = _start_pool(study, list(chosen), how)
            _note(study, chosen, chosen, how)
            return replace(done, parallel=parallel, process=process)
    except OSError as error:
        raise ConfigError(f"cannot submit to {study.path}: {error}") from None


def _missing(study: StudyDir, plan: Plan, states: Collection[str] | None) -> Sequence[PlannedRun]:
    """The runs that are to be submitted, as far as can be said before the study is written."""
    if not study.path.exists():
        return plan.runs if states is None else []
    with study.lock():
        reconcile(study)
    return missing(study, plan.runs, states or TO_DO)


def _start_pool(
    study: StudyDir, runs: list[str], how: Execution
) -> tuple[int, subprocess.Popen[bytes]]:
    """Claim the runs, and start a pool: (runs at once, its process)."""
    parallel = min(how.max_parallel or pool.default_parallel(), len(runs))
    claim, held = study.new_claim(
        "local", runs, command=how.run_command, parallel=parallel, on_end=how.on_end
    )
    with held:
        process = pool.start_pool(claim, held, claim.with_suffix(".log"))
        append_row(claim, {"pid": process.pid})  # here, so that cancel finds it at once
        return parallel, process


def _check_resources(wanted: Sequence[PlannedRun], how: Execution) -> tuple[list[PlannedRun], int]:
    """The runs with all time limits, and how many tasks an array may have (`arrays.check`)."""
    from mpdit.study.cluster.arrays import check  # submitit takes its time

    asked = {run.name: run.resources for run in wanted}
    timed, largest = check(asked, how.max_parallel, how.on_end)
    return [replace(run, resources=timed[run.name]) for run in wanted], largest


def _start_arrays(
    study: StudyDir, runs: dict[str, PlannedRun], largest: int, how: Execution
) -> tuple[JobArray, ...]:
    """Claim the runs, and submit them to Slurm."""
    from mpdit.study.cluster.arrays import submit_arrays

    resources = {name: run.resources for name, run in runs.items()}
    taken = []
    for array in submit_arrays(
        study, resources, largest, how.run_command, how.max_parallel, how.on_end
    ):  # sbatch may refuse the next
        _note(study, (name for task in array.tasks for name in task), runs, how)
        taken.append(array)
    return tuple(taken)


def _note(
    study: StudyDir, started: Iterable[str], runs: dict[str, PlannedRun], how: Execution
) -> None:
    """Write down with what they were submitted: what a retry goes by."""
    asked = {name: runs[name].resources for name in started}
    study.note_submitted(
        {
            name: {"cluster": how.cluster, "time": own.time, "memory": own.memory}
            for name, own in asked.items()
        }
    )


def stored_plan(study: StudyDir) -> Plan:
    """The plan of a study as it was last submitted, under the name that its folder has now.

    Raises:
        ConfigError: when its grid.yaml is no longer one.
    """
    copies = study.path / "extensions"  # of what was submitted, whatever the files are now
    grid = load_grid(study.grid_file, study.table.get("set", ()), copies)
    plan = make_plan(grid, study.defaults)
    return replace(plan, grid=replace(plan.grid, study=study.name))
