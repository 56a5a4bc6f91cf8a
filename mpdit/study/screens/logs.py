"""Print a run's log, or its Slurm task's log while the run has none."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import IO

from mpdit.disk.rundir import RunDir
from mpdit.study.cluster.scheduler import ASK_S, Scheduler
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir, read_claim

POLL_S = 0.5


def show_log(study: StudyDir, run: RunDir, out: IO[bytes], follow: bool) -> str:
    """Copy the run's log to ``out``, and with ``follow`` what is added until the run ends.

    Returns:
        why there is no log, '' when there is one.
    """
    scheduler, position = Scheduler(ASK_S), 0
    (status,) = survey(study, [run.name], scheduler)
    if not run.log.exists():
        reason = _explain(status)
        if not status.is_active and (task := _task_log(study, run)) is not None:
            _copy(task, 0, out)
        if not follow or not status.is_active:
            return reason
        print(reason, flush=True)
    while True:
        if run.log.exists():
            position = _copy(run.log, position, out)
        if not follow or not status.is_active:
            return ""
        time.sleep(POLL_S)
        (status,) = survey(study, [run.name], scheduler)


def _copy(file: Path, position: int, out: IO[bytes]) -> int:
    """Copy what follows ``position`` in a file; return the new position."""
    with file.open("rb") as log:
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


def _explain(status: RunStatus) -> str:
    reason = f" ({status.waits})" if status.waits else ""
    waits = f": job {status.job} waits{reason}" if status.job and status.state == "queued" else ""
    return f"{status.name} has not written a log yet{waits}"
