"""The jobs of a real Slurm that requeue themselves, whatever the controller does meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers.slurm.cluster import Cluster, wait_until
from tests.helpers.slurm.studies import (
    all_running,
    assert_done_once,
    start,
    starts,
    wait_for,
    wait_for_end,
)

pytestmark = pytest.mark.usefixtures("cluster")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.long
def test_a_run_whose_limit_comes_while_the_controller_is_away_goes_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    study = start("variants: {steady: {}}\nslurm: {memory: 200M, time: 9}", tmp_path).study
    (status,) = wait_for(study, all_running)
    run = study.run(status.name)
    state = run.state()
    assert state is not None
    cluster.stop_controller()
    (claim,) = study.claims()
    (task,) = claim.arrays[0].task_ids()
    os.kill(parent(state.pid), signal.SIGUSR2)
    wait_until(lambda: "scontrol" in claim.task_log(task).read_text(), 120)  # the first gave up
    cluster.start_controller()
    wait_for_end(study)
    assert_done_once(study, 1)
    assert len(starts(run)) == 2
