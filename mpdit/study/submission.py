"""Submitting: what the grid wants against what is on disk, and a pool for what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpdit.config import ConfigError
from mpdit.study import pool
from mpdit.study.folder import StudyDir
from mpdit.study.plan import Plan, PlannedRun, load_plan
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
        ConfigError: when the results folder cannot be written, or data is missing.
    """
    from mpdit.datasets import check_available

    folder = (results / plan.study).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"cannot write results to {results / plan.study}: {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write results to {results / plan.study}: {folder} is read-only")
    for data in {run.config.data.model_dump_json(): run.config.data for run in plan.runs}.values():
        check_available(data)


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
        return parallel, pool.start_pool(claim, held, claim.with_suffix(".log"))


def stored_plan(study: StudyDir) -> Plan:
    """The plan of a study as it was last submitted.

    Raises:
        ConfigError: when its grid.yaml is no longer one.
    """
    return load_plan(study.grid_file, study.table.get("set", ()))


def cancel(study: StudyDir, patience_s: float = 60) -> tuple[int, int]:
    """Ask this host's live pools of a study to stop, and wait for them.

    Returns:
        how many were asked, and how many of these have stopped.
    """
    asked = {claim.file for claim in study.claims() if claim.is_here and _terminate(claim.pid)}
    end = time.monotonic() + patience_s
    while (alive := asked & {claim.file for claim in study.claims()}) and time.monotonic() < end:
        time.sleep(0.1)
    return len(asked), len(asked) - len(alive)


def _terminate(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True
