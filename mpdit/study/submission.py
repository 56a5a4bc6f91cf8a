"""Submit the runs of a grid that are missing on disk, to a local pool or to Slurm."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpdit import slurm
from mpdit.disk.files import append_row
from mpdit.errors import ConfigError, nearest
from mpdit.extensions import source_of
from mpdit.grid.grid import load_grid
from mpdit.grid.plan import Plan, PlannedRun, make_plan
from mpdit.grid.site import site_resources
from mpdit.study import pool
from mpdit.study.claims import JobArray
from mpdit.study.codesnapshot import Codes, assign, place_of
from mpdit.study.notice import follow_up
from mpdit.study.reconcile import reconcile
from mpdit.study.staging import read_stage
from mpdit.study.status import TO_DO, RunStatus, missing, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.waiting import read_waiting, stop_waiting
from mpdit.trackers import check_installed

if TYPE_CHECKING:
    from mpdit.grid.resources import Resources
    from mpdit.grid.stages import Stage
    from mpdit.study.cluster.submitter import Submitter

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
    stage: Stage | None = None
    """The stage of a staged study; its runs are those needed so far."""
    goes_on: bool = False
    """Whether the study's later stages are submitted by themselves."""
    parallel: int = 0
    arrays: tuple[JobArray, ...] = ()
    """The arrays submitted to Slurm."""
    waiting: tuple[str, ...] = ()
    """The requested runs that wait, because Slurm accepts no more jobs."""
    limit: str = ""
    """Slurm's name of the limit that it has reached."""
    said: tuple[str, ...] = ()
    """Lines that sbatch printed beside the job ids."""
    continues: bool = False
    """Whether a small job continues the study: it submits waiting runs and retries failed ones."""
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
        retry: how often a run is retried by itself on Slurm; by default as its resources say.
        feeds: whether this submission continues a study (`feed`), so that the study's small job
            exists already.
        command: executes one run, given its folder as last argument.
    """

    cluster: str = "local"
    max_parallel: int | None = None
    on_end: str | None = None
    live_code: bool = False
    retry: int | None = None
    feeds: bool = False
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
            weights, a reference file or the library of ``train.track`` is missing.
    """
    from mpdit.data.datasets import check_available
    from mpdit.data.preflight import check_evaluable

    folder = (results / plan.study).absolute()
    if not str(folder).isprintable():  # a script for sbatch would execute text after a newline
        raise ConfigError(
            f"the path {str(folder)!r} has a control character. Use another --results"
        )
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = "read-only" if folder.is_dir() else "a file"
        raise ConfigError(f"cannot write results to {results / plan.study}: {folder} is {why}")
    configs = [run.config for run in plan.runs]
    for data in dict.fromkeys(config.data for config in configs):
        check_available(data)
    for tool in dict.fromkeys(config.train.track for config in configs):
        check_installed(tool)
    judged = {(config.data, config.evaluate, config.sample.count): config for config in configs}
    try:
        for config in judged.values():
            check_evaluable(config)
    except ConfigError:  # a finished run needs nothing more
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
    submitters at once, the second waits and then finds the claims of the first. Of a staged study
    the runs of its present stage are started.

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
    whole = plan if whole is None else whole
    # a part of a study does not continue automatically
    goes_on = whole.grid.is_staged and len(plan.runs) == len(whole.runs)
    study = StudyDir((results / plan.study).absolute())
    try:
        if study.path.exists():
            with study.lock():
                reconcile(study)
        stage = read_stage(whole, study)
        pending = plan if stage is None else stage.narrow(plan, pending=True)
        wanted: Sequence[PlannedRun] = missing(study, pending.runs, states or TO_DO)
        if adjust is not None:
            wanted = adjust(wanted)
        largest = 0
        if how.cluster == "slurm" and wanted:
            wanted, largest = _check_resources(study.path, wanted, how)
        for run in wanted:
            run.parts  # noqa: B018 - an idea that fails to build fails before anything is written
        study.path.mkdir(parents=True, exist_ok=True)
        with study.lock():
            stage = read_stage(whole, study)  # another submitter may be a stage ahead
            listed = whole if stage is None else stage.narrow(whole)
            plan = plan if stage is None else stage.narrow(plan)
            new, dropped = StudyDir(study.path).compare(whole)
            names = study.write_table(listed, grid_name or plan.grid.source.name, whole.runs)
            study = StudyDir(study.path)  # a new one, which reads the new table
            in_grid = (entry for entry in study.entries if entry.get("in_grid", True))
            needed = {entry["name"] for entry in in_grid if entry.get("needed", True)}
            stop_waiting(study.path, read_waiting(study.path).runs - needed)
            runs = {names[run.id]: run for run in wanted if run.id in names}
            statuses = survey(study, (names[run.id] for run in plan.runs))
            # another submitter may have claimed some since the checks
            todo = [s for s in statuses if s.name in runs and s.state in (states or TO_DO)]
            chosen = {status.name: runs[status.name] for status in todo}
            left = tuple(s for s in statuses if s.name not in chosen)
            asked = tuple(status.name for status in (todo if states else statuses))
            extensions = map(source_of, plan.grid.extensions)
            resumed = {status.name for status in todo if how.feeds or status.keeps_code}
            codes = assign(study.path, chosen, resumed, extensions, how.live_code)
            for name, run in chosen.items():
                kept = codes.given[name] != codes.present
                study.run(name).write_config(run.config, known_keys=kept)
            done = Submission(
                study, asked, tuple(todo), left, codes, tuple(new), tuple(dropped), stage, goes_on
            )
            if not todo:
                return done
            code = place_of(study.path, codes.present)
            study.drop_dead_claims()
            if how.cluster == "slurm":
                return _start_arrays(done, chosen, largest, how, code)
            stop_waiting(study.path, chosen)
            parallel, process = _start_pool(study, list(chosen), how, code, goes_on)
            _note(study, todo, chosen, how)
            return replace(done, parallel=parallel, process=process)
    except OSError as error:
        raise ConfigError(f"cannot submit to {study.path}: {error}") from None


def _start_pool(
    study: StudyDir, runs: list[str], how: Execution, code: Path | None, goes_on: bool
) -> tuple[int, subprocess.Popen[bytes]]:
    """Claim the runs and start a pool; return the number of runs at once and the process.

    With ``goes_on`` the pool submits the study's next stages by itself.
    """
    parallel = min(how.max_parallel or pool.default_parallel(), len(runs))
    next_stages = {"max_parallel": how.max_parallel, "live_code": how.live_code}
    claim, held = study.new_claim(
        "local",
        runs,
        command=how.command,
        parallel=parallel,
        on_end=how.on_end,
        next_stages=next_stages if goes_on else None,
    )
    with held:
        process = pool.start_pool(claim, held, claim.with_suffix(".log"), code)
        append_row(claim, {"pid": process.pid})  # here, so that cancel finds the pool at once
        return parallel, process


def _check_resources(
    folder: Path, wanted: Sequence[PlannedRun], how: Execution
) -> tuple[list[PlannedRun], int]:
    """The runs with a time limit each, and the largest size of an array (`arrays.check`)."""
    from mpdit.study.cluster.arrays import check, check_path  # here: importing submitit is slow

    check_path(folder)
    asked = {run.name: run.resources for run in wanted}
    timed, largest = check(asked, how.max_parallel)
    return [replace(run, resources=timed[run.name]) for run in wanted], largest


def _start_arrays(
    done: Submission,
    runs: dict[str, PlannedRun],
    largest: int,
    how: Execution,
    code: Path | None,
) -> Submission:
    """Claim runs and submit them to Slurm; runs without room wait.

    Returns:
        ``done`` with the submitted arrays and the waiting runs.
    """
    from mpdit.study.cluster.submitter import Submitter

    study, statuses = done.study, {status.name: status for status in done.started}
    before = read_waiting(study.path)
    # a second small job would take another place among the user's jobs
    relies = before.small and how.on_end is None and not (how.feeds or done.goes_on)
    continues = bool(relies and slurm.queue([before.small]))
    others = before.runs - runs.keys()
    kept = replace(
        before,
        runs=others | runs.keys(),
        command=tuple(how.command),
        max_parallel=how.max_parallel,
        live_code=how.live_code,
    )
    kept.write(study.path)  # once a claim has a run, it no longer counts as waiting
    small = partial(follow_up, study.path, None if done.goes_on else sorted(runs), how.on_end)
    submitter = Submitter(study, how.command, code, None if how.feeds else small)
    submitter.continues = continues
    asked = {name: run.resources for name, run in runs.items()}
    arrays, taken = [], set[str]()
    try:
        for array in submitter.submit(
            asked, largest, how.max_parallel, little_room=how.feeds
        ):  # record each array at once: sbatch may reject the next
            names = {name for task in array.tasks for name in task}
            _note(study, [statuses[name] for name in names], runs, how)
            arrays.append(array)
            taken |= names
    except ConfigError:
        replace(kept, runs=others).write(study.path)
        raise
    waiting = tuple(name for name in runs if name not in taken)
    _note(study, [statuses[name] for name in waiting], runs, how)
    now = replace(kept, runs=others | set(waiting), limit=submitter.limit or before.limit)
    retried = any(_retries(run, how) for run in runs.values())
    try:
        if done.goes_on or how.on_end is not None or retried:
            _continue(submitter, next(iter(asked.values())), how, bool(waiting))
    finally:
        replace(now, small=submitter.small_name or before.small).write(study.path)
    return replace(
        done,
        started=tuple(status for status in done.started if status.name in taken),
        arrays=tuple(arrays),
        waiting=waiting,
        limit=submitter.limit,
        said=tuple(dict.fromkeys(submitter.said)),
        continues=submitter.continues,
    )


def _continue(submitter: Submitter, resources: Resources, how: Execution, some_wait: bool) -> None:
    """Submit the small job after all others, unless it exists."""
    if submitter.continues or submitter.small is None or not submitter.jobs:
        return
    try:
        submitter.follow_up(resources, submitter.jobs)
    except ConfigError as error:
        if how.on_end is not None:  # without a small job, `status --watch` retries
            them = "Some runs wait for room" if some_wait else "All runs were submitted"
            failure = f"{them}, but Slurm rejected the --on-end job"
            raise ConfigError(f"{failure}: {error}") from None


def _retries(run: PlannedRun, how: Execution) -> int:
    return (run.resources.retry or 0) if how.retry is None else how.retry


def _note(
    study: StudyDir, started: Iterable[RunStatus], runs: dict[str, PlannedRun], how: Execution
) -> None:
    """Record the resources of submitted runs, which a retry starts from, and earlier failures."""
    last = {entry["name"]: entry.get("submitted", {}) for entry in study.entries}
    details = {}
    for status in started:
        run, before = runs[status.name], last[status.name]
        own: dict[str, Any] = {"cluster": how.cluster}
        own |= {"time": run.resources.time, "memory": run.resources.memory}
        if how.cluster == "slurm":
            given = run.resources.model_dump(mode="json", exclude_defaults=True)
            own |= {"resources": given, "retries": _retries(run, how)}
        attempts = list(before.get("attempts", ()))
        if status.error is not None:
            known = {key: before.get(key) for key in ("time", "memory")}
            attempts.append({"error": status.error, **known})
        details[status.name] = own | ({"attempts": attempts} if attempts else {})
    study.note_submitted(details)


def stored_plan(study: StudyDir) -> Plan:
    """The plan of a study as last submitted, under the current name of its folder.

    Raises:
        ConfigError: when its grid.yaml is not a valid grid.
    """
    copies = study.path / "extensions"  # the submitted versions, not the present files
    grid = load_grid(study.grid_file, study.table.get("set", ()), copies, site_resources())
    plan = make_plan(grid, study.defaults)
    return replace(plan, grid=replace(plan.grid, study=study.name))
