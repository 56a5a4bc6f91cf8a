"""The small job that comes after a submission: it continues the study, and tells of its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mpdit import slurm
from mpdit.errors import ConfigError
from mpdit.study import codesnapshot
from mpdit.study.status import summary, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.waiting import AGAIN, read_waiting

FEED = (sys.executable, "-m", "mpdit.study.feed")
"""The command that submits what waits and retries what failed, given the study's folder."""
SETTLE_S = 20
"""Slurm counts a task for some seconds after its run has ended."""
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

    It awaits the end of ``runs``; None are all, of all stages. Where later submissions rely on this
    job (`Waiting.small`), it awaits all runs while any of them waits for room or may be retried.

    While runs are active, the job requeues itself: so it keeps its place among the user's jobs,
    where a new one might find no room.
    """
    for pause in (0, SETTLE_S):
        time.sleep(pause)
        fed = subprocess.run([*FEED, str(folder)], check=False)
        jobs, waits, active = _look(StudyDir(folder), runs, fed.returncode == 0)
        if jobs or not waits:
            break
    if jobs or waits or active:
        _requeue(jobs, waits)
    elif command is not None:
        notify(folder, runs, command)


def _look(
    study: StudyDir, runs: Collection[str] | None, feeds: bool
) -> tuple[list[str], bool, bool]:
    """The jobs that this job awaits, and whether a run waits for room, and whether any is active.

    Args:
        feeds: whether feeding works; else nothing waits for this job.
    """
    with study.lock():  # a submission finds that this job goes on, or that it does not
        waiting = read_waiting(study.path)
        is_the_one = waiting.small == os.environ.get("SLURM_JOB_NAME")
        found = survey(study)
        fed_later = (s for s in found if s.is_pending and (s.name in waiting.runs or s.retries))
        if runs is not None and not (is_the_one and any(fed_later)):
            found = [status for status in found if status.name in runs]
        jobs = sorted({str(status.job) for status in found if status.is_pending and status.job})
        # a held run may also be in no queue, and wait for nothing
        waits = feeds and any(s.is_pending and s.name in waiting.runs for s in found)
        active = any(status.is_active and status.state != "waiting" for status in found)
        if is_the_one and not (jobs or waits or active):
            replace(waiting, small="").write(study.path)
    return jobs, waits, active


def _requeue(jobs: Sequence[str], waits: bool) -> None:
    """Start this job again when a job has ended, or all of them where no run ``waits`` for room."""
    me = os.environ["SLURM_JOB_ID"]
    tasks = jobs[:LISTED]
    slurm.run("scontrol", "requeue", me)
    later = ("?" if waits else ",").join(f"afterany:{task}" for task in tasks)
    when = f"Dependency={later}" if tasks else f"StartTime={AGAIN}"
    with suppress(ConfigError):  # it then starts two minutes later
        slurm.run("scontrol", "update", f"JobId={me}", when)
    time.sleep(600)  # Slurm ends this process; if it returned, the job would be over
