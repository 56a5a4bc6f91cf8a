"""The small job that comes after a submission: it continues the study, and tells of its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from mpdit import slurm
from mpdit.errors import ConfigError
from mpdit.study import codesnapshot
from mpdit.study.status import RunStatus, summary, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.waiting import AGAIN

FEED = (sys.executable, "-m", "mpdit.study.feed")
"""The command that submits what waits and retries what failed, given the study's folder."""
LISTED = 50
"""A job depends on so many tasks at most."""


def notify(folder: Path, runs: Collection[str] | None, command: str) -> None:
    """Run ``command`` in a shell, in the study's folder, about some runs or all of them.

    MPDIT_STUDY is the folder, MPDIT_SUMMARY one line that counts the runs' states.
    """
    study = StudyDir(folder)
    counted = f"{study.name}: {summary(survey(study, runs))}"
    more = {"MPDIT_STUDY": str(folder), "MPDIT_SUMMARY": counted}
    environment = {**codesnapshot.without(os.environ), **more}
    subprocess.run(["sh", "-c", command], cwd=folder, env=environment, check=False)


def follow_up(folder: Path, runs: Collection[str] | None, command: str | None) -> None:
    """Continue a study from a job of its own, and run ``command`` (`notify`) at its end.

    ``runs`` are those whose end it awaits; None for all, of all stages.

    While runs are active, the job requeues itself: so it keeps its place among the user's jobs,
    where a new one might find no room.
    """
    fed = subprocess.run([*FEED, str(folder)], check=False)
    active = [status for status in survey(StudyDir(folder), runs) if status.is_active]
    if any(fed.returncode == 0 or status.state != "waiting" for status in active):
        _requeue(active)
    elif command is not None:
        notify(folder, runs, command)


def _requeue(active: Collection[RunStatus]) -> None:
    """Start this job again when a run has ended, or all of them where none waits for room."""
    me = os.environ["SLURM_JOB_ID"]
    tasks = sorted({str(status.job) for status in active if status.job})[:LISTED]
    waits = any(status.state == "waiting" for status in active)
    slurm.run("scontrol", "requeue", me)
    later = ("?" if waits else ",").join(f"afterany:{task}" for task in tasks)
    when = f"Dependency={later}" if tasks else f"StartTime={AGAIN}"
    with suppress(ConfigError):  # it then starts two minutes later
        slurm.run("scontrol", "update", f"JobId={me}", when)
    time.sleep(600)  # Slurm ends this process; if it returned, the job would be over
