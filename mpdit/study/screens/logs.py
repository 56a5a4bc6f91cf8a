"""Print the logs of runs, and their Slurm tasks' logs where those tell why a run ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.study.claims import read_claim
from mpdit.study.cluster.scheduler import ASK_S, Scheduler
from mpdit.study.runprocess import tail
from mpdit.study.status import WAITING, RunStatus, survey
from mpdit.study.studydir import StudyDir

POLL_S = 0.5


def show_logs(study: StudyDir, names: Sequence[str], out: TextIO, follow: bool) -> list[str]:
    """Copy the logs of runs to ``out``, and with ``follow`` new lines until the runs end.

    With several runs, a line names the run whenever the text changes to another run.

    Returns:
        why runs have no log, one line for each.
    """
    scheduler, copier = Scheduler(ASK_S), _Copier(out, several=len(names) > 1)
    left, reasons, said = list(names), [], set()
    while left:
        statuses = _statuses(study, left, scheduler)
        active = [name for name in left if name in statuses and statuses[name].is_active]
        for name in left:
            run = study.run(name)
            reason = f"{name} has not written a log yet{_waits(statuses.get(name))}"
            if run.log.exists():
                copier.copy(run, run.log)
                task = None if name in active else _task_log(study, run)
                if task is not None and _tells_more(task, run, statuses.get(name)):
                    copier.copy(run, task, ": the job's own output")
            elif not follow or name not in active:
                if name not in active and (task := _task_log(study, run)) is not None:
                    copier.copy(run, task)
                reasons.append(reason)
            elif name not in said:
                said.add(name)
                print(reason, flush=True)
        left = active if follow else []
        if left:
            time.sleep(POLL_S)
    return reasons


def _statuses(study: StudyDir, names: Sequence[str], scheduler: Scheduler) -> dict[str, RunStatus]:
    """The runs in study.json; none where it is damaged, as logs can be read without it."""
    with suppress(ConfigError):
        return {status.name: status for status in survey(study, names, scheduler)}
    return {}


class _Copier:
    """Copies the text that was added to files since the last copy."""

    def __init__(self, out: TextIO, several: bool) -> None:
        self.out = out
        self.several = several
        self.positions: dict[Path, int] = {}
        self.last = ""

    def copy(self, run: RunDir, file: Path, what: str = "") -> None:
        """Copy the new text of a run's file; ``what`` describes a second file of the run."""
        with file.open(errors="replace", newline="\n") as log:
            log.seek(self.positions.get(file, 0))
            shown = run.name + what
            if (text := log.read()) and (self.several or what) and shown != self.last:
                self.out.write(f"==> {shown} <==\n")
                self.last = shown
            self.out.write(text)
            self.out.flush()
            self.positions[file] = log.tell()


def _task_log(study: StudyDir, run: RunDir) -> Path | None:
    """The log of the run's newest task, None without one."""
    for file in sorted(study.jobs.glob("*.jsonl"), reverse=True):
        claim = read_claim(file)
        task = claim.task_of(run.name)
        if task is not None and claim.task_log(task).exists():
            return claim.task_log(task)
    return None


def _tells_more(task: Path, run: RunDir, status: RunStatus | None) -> bool:
    """Whether a task's log is newer than the run's, which does not have the run's error."""
    if status is None or status.state not in ("failed", "lost"):
        return False
    is_newer = task.stat().st_mtime > run.log.stat().st_mtime
    return is_newer and (status.error is None or status.error not in tail(run.log))


def _waits(status: RunStatus | None) -> str:
    if status is None or not status.job or status.state not in WAITING:
        return ""
    reason = f" ({status.waits})" if status.waits else ""
    return f": job {status.job} waits{reason}"
