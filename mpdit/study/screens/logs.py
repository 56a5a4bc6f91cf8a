"""Print a run's log, or its Slurm task's log while the run has none."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.study.cluster.scheduler import ASK_S, Scheduler
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir, read_claim

POLL_S = 0.5


def show_log(study: StudyDir, run: RunDir, out: TextIO, follow: bool) -> str:
    """Copy the run's log to ``out``, and with ``follow`` what is added until the run ends.

    Returns:
        why there is no log, '' when there is one.
    """
    scheduler, position = Scheduler(ASK_S), 0
    status = _status(study, run, scheduler)
    if not run.log.exists():
        reason = f"{run.name} has not written a log yet{_waits(status)}"
        if not (status and status.is_active) and (task := _task_log(study, run)) is not None:
            _copy(task, 0, out)
        if not follow or not (status and status.is_active):
            return reason
        print(reason, flush=True)
    while True:
        if run.log.exists():
            position = _copy(run.log, position, out)
        if not follow or not (status and status.is_active):
            return ""
        time.sleep(POLL_S)
        status = _status(study, run, scheduler)


def _status(study: StudyDir, run: RunDir, scheduler: Scheduler) -> RunStatus | None:
    """None where study.json does not list the run, or is damaged: the log can be read without."""
    with suppress(ConfigError):
        return next(iter(survey(study, [run.name], scheduler)), None)
    return None


def _copy(file: Path, position: int, out: TextIO) -> int:
    """Copy what follows ``position`` in a file; return the new position."""
    with file.open(errors="replace", newline="\n") as log:
        log.seek(position)
        shutil.copyfileobj(log, out)
        out.flush()
        return log.tell()


def _task_log(study: StudyDir, run: RunDir) -> Path | None:
    """The log of the run's newest task, None without one."""
    for file in sorted(study.jobs.glob("*.jsonl"), reverse=True):
        claim = read_claim(file)
        task = claim.task_of(run.name)
        if task is not None and claim.task_log(task).exists():
            return claim.task_log(task)
    return None


def _waits(status: RunStatus | None) -> str:
    if status is None or not status.job or status.state != "queued":
        return ""
    reason = f" ({status.waits})" if status.waits else ""
    return f": job {status.job} waits{reason}"
