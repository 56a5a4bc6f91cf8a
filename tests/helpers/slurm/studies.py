"""Studies on a real Slurm: submitted, waited for, and held against what every one must come to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.grid.plan import Plan
from mpdit.study.cluster.scheduler import Scheduler
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, submit
from tests.helpers import plans, stand_in
from tests.helpers.launching import LAUNCH
from tests.helpers.slurm.cluster import wait_until

BASE = """\
study: s
base:
  data: digits
  model: {depth: 1, width: 16, heads: 2, patch_size: 4}
  train: {steps: 24, batch_size: 8, checkpoint_every: 100, snapshot_every: 1000, log_every: 5}
  sample: {count: 50, steps: 4, batch_size: 20}
"""
PATIENCE_S = 120


def plan(text: str, *sets: str) -> Plan:
    return plans.plan(text, *sets, base=BASE)


def start(text: str, results: Path, on_end: str | None = None) -> Submission:
    """Submit runs of the stand-in."""
    how = Execution("slurm", on_end=on_end, command=stand_in.COMMAND)
    return submit(plan(text), results, how)


def launch(folder: Path, *arguments: str, **environment: str) -> str:
    """What a command of launch.py says that goes well, in a folder; its runs are the stand-in's."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(text: str, results: Path, *sets: str) -> Submission:
    """Submit real ones."""
    return submit(plan(text, *sets), results, Execution("slurm"))


def look(study: StudyDir) -> list[RunStatus]:
    return survey(StudyDir(study.path))


def states(study: StudyDir) -> dict[str, str]:
    return {status.variant: status.state for status in look(study)}


def wait_for(
    study: StudyDir,
    condition: Callable[[list[RunStatus]], bool],
    patience_s: float = PATIENCE_S,
) -> list[RunStatus]:
    """Look at the disk often and ask Slurm every two seconds."""
    scheduler, end = Scheduler(2), time.monotonic() + patience_s
    while True:
        statuses = survey(StudyDir(study.path), scheduler=scheduler)
        if condition(statuses):
            return statuses
        assert time.monotonic() < end, "\n".join(map(str, statuses))
        time.sleep(0.2)


def wait_for_end(study: StudyDir, patience_s: float = PATIENCE_S) -> list[RunStatus]:
    return wait_for(study, lambda found: not any(s.is_active for s in found), patience_s)


def all_running(found: list[RunStatus]) -> bool:
    return all(status.state == "running" and status.step > 2 for status in found)


def command_of(pid: int) -> bytes:
    """Empty when it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def starts(run: RunDir) -> list[dict[str, object]]:
    return [row for row in read_rows(run.path / "starts.jsonl") if "began" in row]


def assert_done_once(study: StudyDir, runs: int) -> None:
    """Every stand-in's run came to its end, and only once; nothing claims it any more."""
    statuses = look(study)
    assert [status.state for status in statuses] == ["done"] * runs
    for status in statuses:
        run = study.run(status.name)
        assert len(read_rows(run.path / "evaluation.jsonl")) == 1, run.name
    wait_until(lambda: not study.claims())  # a task looks at its runs a few times a second
