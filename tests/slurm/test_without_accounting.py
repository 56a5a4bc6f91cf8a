"""Many clusters keep no accounts: what became of a run is known all the same."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.study.cancel import cancel
from mpdit.study.choosing import select_runs
from mpdit.study.hold import hold, release
from mpdit.study.retry import STATES
from mpdit.study.status import survey
from mpdit.study.submission import Execution, stored_plan, submit
from tests.helpers import stand_in
from tests.helpers.slurm.cluster import Cluster
from tests.helpers.slurm.studies import (
    all_running,
    assert_done_once,
    command_of,
    look,
    start,
    states,
    wait_for,
    wait_for_end,
)

pytestmark = pytest.mark.usefixtures("bare_cluster")
MEMORY = "memory: 200M"


def test_a_study_is_done_and_status_asks_once(tmp_path: Path) -> None:
    submission = start(f"seeds: 8\nslurm: {{{MEMORY}}}", tmp_path)
    slurm.calls.clear()
    survey(submission.study)
    assert slurm.calls == {"squeue": 1}
    wait_for_end(submission.study)
    assert_done_once(submission.study, 8)


def test_a_killed_job_has_failed_by_slurms_word_and_is_tried_again(
    bare_cluster: Cluster, tmp_path: Path
) -> None:
    submission = start(f"variants: {{steady: {{}}}}\nslurm: {{{MEMORY}}}", tmp_path)
    study = submission.study
    wait_for(study, all_running)
    (status,) = look(study)
    bare_cluster.run("scontrol", "update", f"JobId={status.job}", "Requeue=0")
    pids = bare_cluster.job_processes(str(status.where))
    # the task first, so that it cannot say what befell its run
    for pid in sorted(pids, key=lambda pid: b"submitit" not in command_of(pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (status,) = wait_for_end(study)
    assert status.state == "failed"
    assert "FAILED" in str(status.error)
    again = submit(
        stored_plan(study), tmp_path, Execution("slurm", command=stand_in.COMMAND), states=STATES
    )
    assert len(again.started) == 1
    wait_for_end(study)
    assert_done_once(study, 1)


@pytest.mark.long
def test_waiting_runs_are_held_until_they_are_released(tmp_path: Path) -> None:
    text = (
        "variants: {steady: {}, b: {mp_silu: true}, c: {mp_residual: true}}\n"
        f"slurm: {{{MEMORY}, max_parallel: 1}}"
    )
    study = start(text, tmp_path).study
    wait_for(study, lambda found: all_running(found[:1]))
    _, b, c = select_runs(study, [])
    slurm.calls.clear()
    assert [status.name for status in hold(study, select_runs(study, [])).runs] == [b, c]
    assert slurm.calls == {"squeue": 3, "scontrol": 1}
    assert states(study) == {"steady": "running", "b": "held", "c": "held"}
    assert start(text, tmp_path).started == ()
    assert [status.state for status in release(study, [c]).runs] == ["queued"]
    wait_for(study, lambda found: [s.state for s in found] == ["done", "held", "done"])
    release(study, select_runs(study, []))
    wait_for_end(study)
    assert_done_once(study, 3)


def test_a_cancelled_study_is_waited_for(tmp_path: Path) -> None:
    text = (
        f"variants: {{slow: {{}}, next: {{mp_silu: true}}}}\nslurm: {{{MEMORY}, max_parallel: 1}}"
    )
    study = start(text, tmp_path).study
    wait_for(study, lambda found: all_running(found[:1]))
    done = cancel(study)
    assert (done.asked, done.stopped) == (2, 2)
    assert [status.word for status in look(study)] == ["interrupted", "planned"]
