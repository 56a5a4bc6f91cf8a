"""The small job that follows a submission: it continues the study, and runs --on-end at its end."""

from __future__ import annotations

import os
import signal
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
"""The command that submits waiting runs and retries failed runs, given the study's folder."""
SETTLE_S = 20
"""Seconds until a second attempt: Slurm counts a task for some time after its run has ended."""
LISTED = 50
"""The most tasks that a job depends on."""


def notify(folder: Path, runs: Collection[str] | None, command: str) -> None:
    """Run the user's ``command`` in a shell, in the study's folder.

    MPDIT_STUDY is the folder. MPDIT_SUMMARY is one line that counts the states of ``runs`` (None:
    of all runs).
    """
    study = StudyDir(folder)
    counted = f"{study.name}: {summary(survey(study, runs))}"
    more = {"MPDIT_STUDY": str(folder), "MPDIT_SUMMARY": counted}
    environment = {**codesnapshot.without(os.environ), **more}
    subprocess.run(["sh", "-c", command], cwd=folder, env=environment, check=False)


def follow_up(folder: Path, runs: Collection[str] | None, command: str | None) -> None:
    """Continue a study from its small job, and run ``command`` (`notify`) at the study's end.

    It waits for the end of ``runs``; None means all runs of all stages. Where later submissions
    rely on this job (`Waiting.small`), it waits for all runs while any waits for room or may be
    retried.

    While runs are active, the job requeues itself. So it keeps its place among the user's jobs; a
    new job might find no room. It ignores Slurm's signal ahead of the time limit, which may come
    as soon as it starts, and at preemption: Slurm requeues a preempted job.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
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
    """The jobs that this job waits for, whether a run waits for room, whether any run is active.

    Args:
        feeds: whether feeding works; if not, no run counts as waiting for room.
    """
    with study.lock():  # a submission sees whether this job continues
        waiting = read_waiting(study.path)
        is_the_one = waiting.small == os.environ.get("SLURM_JOB_NAME")
        found = survey(study)
        fed_later = (s for s in found if s.is_pending and (s.name in waiting.runs or s.retries))
        if runs is not None and not (is_the_one and any(fed_later)):
            found = [status for status in found if status.name in runs]
        jobs = sorted({str(status.job) for status in found if status.is_pending and status.job})
        # a held run may have no job to wait for
        waits = feeds and any(s.is_pending and s.name in waiting.runs for s in found)
        active = any(status.is_active and status.state != "waiting" for status in found)
        if is_the_one and not (jobs or waits or active):
            replace(waiting, small="").write(study.path)
    return jobs, waits, active


def _requeue(jobs: Sequence[str], waits: bool) -> None:
    """Requeue this job until one of ``jobs`` has ended; until all have, if no run ``waits``."""
    me = os.environ["SLURM_JOB_ID"]
    tasks = jobs[:LISTED]
    slurm.requeue(me)
    later = ("?" if waits else ",").join(f"afterany:{task}" for task in tasks)
    when = f"Dependency={later}" if tasks else f"StartTime={AGAIN}"
    with suppress(ConfigError):  # it then starts two minutes later
        slurm.run("scontrol", "update", f"JobId={me}", when)
    time.sleep(600)  # Slurm ends this process; if it returned, the job would be over
