"""Submitting: what the grid wants against what is on disk, and a pool for what is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mpdit.config import ConfigError
from mpdit.study import pool
from mpdit.study.folder import StudyDir
from mpdit.study.plan import Plan, PlannedRun, load_plan
from mpdit.study.rundir import RunDir, append_row
from mpdit.study.status import RunStatus, survey


@dataclass(frozen=True)
class Submission:
    """What a submission did: the runs it started, the others as they were, and its pool."""

    study: StudyDir
    runs: tuple[str, ...]
    """The runs that were asked for, by folder."""
    started: tuple[RunStatus, ...]
    left: tuple[RunStatus, ...]
    parallel: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def stop(self) -> None:
        """Ask the pool to stop; its runs keep their state."""
        if self.process is not None:
            self.process.terminate()

    def is_working(self) -> bool:
        """Whether the pool lives."""
        return self.process is not None and self.process.poll() is None


def check_plan(plan: Plan, results: Path) -> None:
    """Whether a plan could run here, before anything is written.

    Raises:
        ConfigError: when the results folder cannot be written, or data, Inception's weights or a
            reference file is missing.
    """
    from mpdit.data.datasets import check_available
    from mpdit.prerequisites import check_evaluable

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
    for config in judged.values():
        check_evaluable(config)


def submit(
    plan: Plan,
    results: Path,
    *,
    whole: Plan | None = None,
    grid_name: str = "",
    max_parallel: int | None = None,
    states: Collection[str] | None = None,
    command: Sequence[str] | None = None,
) -> Submission:
    """Bring a study's folder in line with its plan, and start a pool for what is missing.

    Done runs are skipped; running and claimed ones are left alone; the others go on from what is on
    disk. Two submitters at once take turns, and the second finds the first one's claims.

    Args:
        whole: the study's whole plan, where ``plan`` is only a part of it.
        grid_name: the grid's file, for study.json.
        states: submit only runs in one of these states.
        command: executes one run, given its folder as last argument.

    Raises:
        ConfigError: when the folder cannot be written or data is missing; nothing is written then.
    """
    check_plan(plan, results)
    study = StudyDir((results / plan.study).absolute())
    try:
        study.path.mkdir(parents=True, exist_ok=True)
        with study.lock():
            names = study.write_table(whole or plan, grid_name or plan.grid.source.name)
            runs = {names[run.id]: run for run in plan.runs}
            statuses = survey(StudyDir(study.path), runs)
            todo = [s for s in statuses if not s.is_active and s.state in (states or _TO_DO)]
            left = tuple(s for s in statuses if s not in todo)
            asked = tuple(status.name for status in (todo if states else statuses))
            if not todo:
                return Submission(study, asked, (), left)
            claimed = _start(study, runs, todo, max_parallel, list(command or pool.RUN_COMMAND))
            return Submission(study, asked, tuple(todo), left, *claimed)
    except OSError as error:
        raise ConfigError(f"cannot submit to {study.path}: {error}") from None


_TO_DO = ("planned", "failed", "lost")


def _start(
    study: StudyDir,
    runs: dict[str, PlannedRun],
    todo: list[RunStatus],
    max_parallel: int | None,
    command: list[str],
) -> tuple[int, subprocess.Popen[bytes]]:
    """Write the runs' configs, claim them, and start a pool: (runs at once, its process)."""
    for status in todo:
        study.run(status.name).write_config(runs[status.name].config)
    study.drop_dead_claims()
    parallel = min(max_parallel or pool.default_parallel(), len(todo))
    claim, held = study.new_claim(
        "local", [status.name for status in todo], command=command, parallel=parallel
    )
    with held:
        process = pool.start_pool(claim, held, claim.with_suffix(".log"))
        append_row(claim, {"pid": process.pid})  # here, so that cancel finds it at once
        return parallel, process


def stored_plan(study: StudyDir) -> Plan:
    """The plan of a study as it was last submitted, under the name that its folder has now.

    Raises:
        ConfigError: when its grid.yaml is no longer one.
    """
    plan = load_plan(study.grid_file, study.table.get("set", ()))
    return replace(plan, grid=replace(plan.grid, study=study.name))


def cancel(study: StudyDir, patience_s: float = 60) -> tuple[int, int]:
    """Stop what works on a study on this host, and wait for it.

    First its pools, which stop their runs; then the runs that no pool looks after, such as those
    started by hand and those whose pool was killed.

    Returns:
        how many processes were asked to stop, and how many of these have.

    Raises:
        ConfigError: when one belongs to another user; the others are stopped all the same.
    """
    end = time.monotonic() + patience_s
    others: list[str] = []
    pools = {
        claim.file
        for claim in study.claims()
        if claim.is_here and _terminate(claim.pid, claim.file, others)
    }
    while (alive := pools & {claim.file for claim in study.claims()}) and time.monotonic() < end:
        time.sleep(0.1)
    runs = [run for run, pid in _alone(study) if _terminate(pid, run.path / "state.json", others)]
    while (left := [run for run in runs if run.is_leased()]) and time.monotonic() < end:
        time.sleep(0.1)
    if others:
        raise ConfigError(f"not stopped, as only its owner can: {', '.join(others)}")
    asked = len(pools) + len(runs)
    return asked, asked - len(alive) - len(left)


def _alone(study: StudyDir) -> Iterator[tuple[RunDir, int]]:
    """The runs that execute on this host without a live pool, and their processes."""
    claimed = {run for claim in study.claims() for run in claim.runs}
    for status in survey(study):
        run = study.run(status.name)
        if status.state != "running" or status.name in claimed or not (said := run.state()):
            continue
        # a run that has just been started again may still have its last, ended process there
        if said.host == socket.gethostname() and said.error is None and said.stopped is None:
            yield run, said.pid


def _terminate(pid: int, file: Path, others: list[str]) -> bool:
    """Ask the process that wrote ``file`` to stop; into ``others`` when it is another user's."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError:
        others.append(f"process {pid} of {file.owner()} on {socket.gethostname()}")
        return False
    return True
