"""Submit the runs of a grid that are missing on disk, to a local pool or to Slurm."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mpdit import slurm
from mpdit.disk.files import append_row
from mpdit.errors import ConfigError, nearest
from mpdit.extensions import source_of
from mpdit.grid.grid import load_grid
from mpdit.grid.plan import Plan, PlannedRun, make_plan
from mpdit.grid.site import site_resources
from mpdit.study import pool
from mpdit.study.codesnapshot import Codes, assign, place_of
from mpdit.study.notice import notify
from mpdit.study.reconcile import reconcile
from mpdit.study.status import TO_DO, RunStatus, missing, survey
from mpdit.study.studydir import JobArray, StudyDir

CLUSTERS = ("auto", "slurm", "local")


@dataclass(frozen=True)
class Submission:
    """The result of a submission: the runs that it started, the other runs, and its pool."""

    study: StudyDir
    runs: tuple[str, ...]
    """The folders of the runs that were asked for."""
    started: tuple[RunStatus, ...]
    left: tuple[RunStatus, ...]
    codes: Codes
    new: tuple[str, ...] = ()
    """Folders of the runs that the grid did not have when it was last submitted."""
    dropped: tuple[str, ...] = ()
    """Folders of the runs that it no longer has."""
    parallel: int = 0
    arrays: tuple[JobArray, ...] = ()
    """The arrays submitted to Slurm."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def stop(self) -> None:
        """Send TERM to the pool; its runs keep their state."""
        if self.process is not None:
            self.process.terminate()

    def is_working(self) -> bool:
        """Whether the pool is alive."""
        return self.process is not None and self.process.poll() is None


@dataclass(frozen=True)
class Execution:
    """How runs are executed.

    Attributes:
        cluster: ``slurm`` or ``local``.
        max_parallel: runs at once; by default the resources' limit, or one a GPU or core.
        on_end: a shell command that is run when all runs have ended.
        live_code: runs execute the checkout as it is when they start, not a snapshot of it.
        command: executes one run, given its folder as last argument.
    """

    cluster: str = "local"
    max_parallel: int | None = None
    on_end: str | None = None
    live_code: bool = False
    command: Sequence[str] = field(default_factory=lambda: pool.RUN_COMMAND)


def choose_cluster(asked: str, plan: Plan) -> str:
    """``slurm`` or ``local``; ``auto`` is Slurm when the grid has ``slurm:`` and sbatch exists.

    Raises:
        ConfigError: for an unknown name, and for Slurm where sbatch does not exist.
    """
    if asked not in CLUSTERS:
        hint = nearest(asked, CLUSTERS)
        raise ConfigError(f"--cluster {asked!r} is not one of {', '.join(CLUSTERS)}.{hint}")
    if asked == "auto":
        named = any(run.resources != plan.grid.site for run in plan.runs)
        return "slurm" if named and slurm.is_available() else "local"
    if asked == "slurm" and not slurm.is_available():
        raise ConfigError("sbatch not found on this machine. Use --cluster local.")
    return asked


def check_plan(plan: Plan, results: Path) -> None:
    """Check that a plan can run here, before anything is written.

    Raises:
        ConfigError: when the results folder cannot be written, or when data, an extractor's
            weights or a reference file is missing.
    """
    from mpdit.data.datasets import check_available
    from mpdit.data.preflight import check_evaluable

    folder = (results / plan.study).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = "read-only" if folder.is_dir() else "a file"
        raise ConfigError(f"cannot write results to {results / plan.study}: {folder} is {why}")
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
    how: Execution,
    *,
    whole: Plan | None = None,
    grid_name: str = "",
    states: Collection[str] | None = None,
    adjust: Callable[[Sequence[PlannedRun]], Sequence[PlannedRun]] | None = None,
) -> Submission:
    """Update a study's folder to its plan, and start the runs that are missing.

    Done, running and claimed runs are left alone; the others resume from what is on disk. Of two
    submitters at once, the second waits and then finds the claims of the first.

    Args:
        results: the folder of all studies.
        whole: the study's whole plan, where ``plan`` is a part of it.
        grid_name: the grid's file, for study.json.
        states: submit only runs in one of these states.
        adjust: maps the runs to be submitted to the same runs with other resources.

    Raises:
        ConfigError: when the folder cannot be written, data is missing, or Slurm would reject a
            run; nothing is written in these cases. When sbatch itself fails, the arrays before it
            stay submitted.
    """
    check_plan(plan, results)
    study = StudyDir((results / plan.study).absolute())
    try:
        if study.path.exists():
            with study.lock():
                reconcile(study)
        wanted: Sequence[PlannedRun] = missing(study, plan.runs, states or TO_DO)
        if adjust is not None:
            wanted = adjust(wanted)
        largest = 0
        if how.cluster == "slurm" and wanted:
            wanted, largest = _check_resources(wanted, how)
        study.path.mkdir(parents=True, exist_ok=True)
        with study.lock():
            new, dropped = StudyDir(study.path).compare(whole or plan)
            names = study.write_table(whole or plan, grid_name or plan.grid.source.name)
            study = StudyDir(study.path)  # a new one, which reads the new table
            runs = {names[run.id]: run for run in wanted}
            statuses = survey(study, (names[run.id] for run in plan.runs))
            # another submitter may have claimed some since the checks
            todo = [s for s in statuses if s.name in runs and s.state in (states or TO_DO)]
            chosen = {status.name: runs[status.name] for status in todo}
            left = tuple(s for s in statuses if s.name not in chosen)
            asked = tuple(status.name for status in (todo if states else statuses))
            extensions = map(source_of, plan.grid.extensions)
            resumed = {status.name for status in todo if status.keeps_code}
            codes = assign(study.path, chosen, resumed, extensions, how.live_code)
            for name, run in chosen.items():
                kept = codes.given[name] != codes.present
                study.run(name).write_config(run.config, known_keys=kept)
            done = Submission(study, asked, tuple(todo), left, codes, tuple(new), tuple(dropped))
            if not todo:
                return done
            code = place_of(study.path, codes.present)
            study.drop_dead_claims()
            if how.cluster == "slurm":
                return replace(done, arrays=_start_arrays(study, chosen, largest, how, code))
            parallel, process = _start_pool(study, list(chosen), how, code)
            _note(study, chosen, chosen, how)
            return replace(done, parallel=parallel, process=process)
    except OSError as error:
        raise ConfigError(f"cannot submit to {study.path}: {error}") from None


def _start_pool(
    study: StudyDir, runs: list[str], how: Execution, code: Path | None
) -> tuple[int, subprocess.Popen[bytes]]:
    """Claim the runs and start a pool; return the number of runs at once and the process."""
    parallel = min(how.max_parallel or pool.default_parallel(), len(runs))
    claim, held = study.new_claim(
        "local", runs, command=how.command, parallel=parallel, on_end=how.on_end
    )
    with held:
        process = pool.start_pool(claim, held, claim.with_suffix(".log"), code)
        append_row(claim, {"pid": process.pid})  # here, so that cancel finds the pool at once
        return parallel, process


def _check_resources(wanted: Sequence[PlannedRun], how: Execution) -> tuple[list[PlannedRun], int]:
    """The runs with a time limit each, and the largest size of an array (`arrays.check`)."""
    from mpdit.study.cluster.arrays import check  # here: importing submitit is slow

    asked = {run.name: run.resources for run in wanted}
    timed, largest = check(asked, how.max_parallel)
    return [replace(run, resources=timed[run.name]) for run in wanted], largest


def _start_arrays(
    study: StudyDir,
    runs: dict[str, PlannedRun],
    largest: int,
    how: Execution,
    code: Path | None,
) -> tuple[JobArray, ...]:
    """Claim the runs and submit them to Slurm."""
    from mpdit.study.cluster.arrays import submit_arrays

    resources = {name: run.resources for name, run in runs.items()}
    notice = None if how.on_end is None else partial(notify, study.path, command=how.on_end)
    taken = []
    for array in submit_arrays(
        study, resources, largest, how.command, how.max_parallel, notice, code
    ):  # noted one by one: sbatch may reject the next
        _note(study, (name for task in array.tasks for name in task), runs, how)
        taken.append(array)
    return tuple(taken)


def _note(
    study: StudyDir, started: Iterable[str], runs: dict[str, PlannedRun], how: Execution
) -> None:
    """Record the resources of submitted runs, which a retry starts from."""
    details = {}
    for name in started:
        own = runs[name].resources
        details[name] = {"cluster": how.cluster, "time": own.time, "memory": own.memory}
    study.note_submitted(details)


def stored_plan(study: StudyDir) -> Plan:
    """The plan of a study as last submitted, under the current name of its folder.

    Raises:
        ConfigError: when its grid.yaml is not a valid grid.
    """
    copies = study.path / "extensions"  # of what was submitted, whatever the files are now
    grid = load_grid(study.grid_file, study.table.get("set", ()), copies, site_resources())
    plan = make_plan(grid, study.defaults)
    return replace(plan, grid=replace(plan.grid, study=study.name))
