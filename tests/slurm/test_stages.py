"""Staged studies on Slurm: the next stage comes by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpdit.grid.plan import Plan
from mpdit.study.advance import stage_on_disk
from mpdit.study.studydir import StudyDir
from tests.helpers import stand_in
from tests.helpers.slurm.cluster import Cluster, wait_until
from tests.helpers.slurm.studies import BASE, launch, look, plan, start
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


def test_waiting_submits_the_next_stages(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(BASE + TEXT)
    said = launch(tmp_path, "submit", "grid.yaml", "--wait")
    assert "tuning 1 of 1" in said
    study = StudyDir(tmp_path / "results" / "s")
    assert done(study) == expected(plan(TEXT))
    cluster.run("scancel", "--user", "root")  # the small job has nothing left to do
