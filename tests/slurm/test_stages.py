"""Staged studies on Slurm: the next stage comes by itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mpdit.grid.plan import Plan
from mpdit.study.advance import stage_on_disk
from mpdit.study.studydir import StudyDir
from mpdit.study.waiting import read_waiting
from tests.helpers import stand_in
from tests.helpers.slurm.cluster import Cluster, wait_until
from tests.helpers.slurm.studies import BASE, launch, look, plan, start, starts, wait_for
from tests.helpers.staged import walk

TEXT = """
variants: {a: {}, better: {mp_silu: true}}
tune: {train.learning_rate: [1e-3, 1e-2], seeds: 1}
seeds: {looks: [3, 4]}
slurm: {memory: 200M}
"""


def expected(made: Plan) -> set[str]:
    return {run.name for run in walk(made, lambda run: stand_in.distance(run.name))[-1].runs}


def done(study: StudyDir) -> set[str]:
    return {status.name for status in look(study) if status.state == "done"}


@pytest.mark.usefixtures("cluster")
def test_a_small_job_submits_the_next_stages(tmp_path: Path) -> None:
    submission = start(TEXT, tmp_path)
    assert submission.stage is not None
    assert submission.stage.words == "tuning 1 of 1"
    assert submission.continues
    wanted = expected(plan(TEXT))
    wait_until(lambda: done(submission.study) == wanted, 240)
    now = stage_on_disk(StudyDir(submission.study.path))
    assert now is not None
    assert now.is_over


@pytest.mark.long
def test_waiting_submits_the_next_stages(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(BASE + TEXT)
    said = launch(tmp_path, "submit", "grid.yaml", "--wait")
    assert "tuning 1 of 1" in said
    study = StudyDir(tmp_path / "results" / "s")
    assert done(study) == expected(plan(TEXT))
    cluster.run("scancel", "--user", "root")  # the small job has nothing left to do


@pytest.mark.long
def test_a_killed_task_and_a_killed_small_job_end_in_the_same_runs(
    cluster: Cluster, tmp_path: Path
) -> None:
    text = TEXT.replace("a: {}", "steady: {}").replace("[3, 4]", "[3]")
    wanted = expected(plan(text))
    study = start(text, tmp_path).study
    # a task is killed in the middle of its run, which holds up the stage
    [status, *_] = [
        status
        for status in wait_for(study, lambda found: any(2 < s.step < 12 for s in found))
        if 2 < status.step < 12
    ]
    state = study.run(status.name).state()
    assert state is not None
    assert state.pid is not None
    os.kill(state.pid, signal.SIGKILL)
    # the small job is killed in the middle of the stage
    cluster.run("scancel", "--name", read_waiting(study.path).small)
    ended = wait_for(study, lambda found: not any(s.is_active for s in found))
    assert {s.name for s in ended if s.state == "failed"} == {status.name}
    now = stage_on_disk(StudyDir(study.path))
    assert now is not None
    assert [run.name for run in now.pending] == [status.name]
    # submitted again, by two at once, it goes on by itself
    first, second = start(text, tmp_path), start(text, tmp_path)
    assert [s.name for s in first.started] == [status.name]
    assert not second.started
    wait_until(lambda: done(study) == wanted, 240)
    over = stage_on_disk(StudyDir(study.path))
    assert over is not None
    assert over.is_over
    began = {name: len(starts(study.run(name))) for name in wanted}
    assert began.pop(status.name) == 2
    assert set(began.values()) == {1}
