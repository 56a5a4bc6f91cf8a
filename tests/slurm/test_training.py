"""Real runs on a real Slurm: whatever ends them on the way, they come to a local run's bits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE
from mpdit.study.status import RunStatus
from mpdit.study.studydir import StudyDir
from tests.helpers import ROOT, interrupted, processes
from tests.helpers.slurm.cluster import NODES, Cluster, wait_until
from tests.helpers.slurm.studies import command_of, look, plan, train, wait_for, wait_for_end

LONG = ("train.steps=2500", "train.checkpoint_every=250")


def slurm(**resources: object) -> str:
    asked = {"memory": "3000M", "cpus": 1, "time": 30, **resources}
    return f"slurm: {json.dumps(asked)}\n"


def half_way(found: list[RunStatus]) -> bool:
    return all(status.stage == "train" and status.step > 300 for status in found)


def half_way_on_a_node(folder: Path) -> tuple[StudyDir, str]:
    """A study whose only run is half-way, and the node that executes it."""
    study = train(slurm(), folder, *LONG).study
    wait_for(study, half_way)
    (status,) = look(study)
    assert status.where is not None
    return study, status.where


def the_run(study: StudyDir) -> RunDir:
    (status,) = look(study)
    return study.run(status.name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the long run comes to in one go on this machine."""
    run = RunDir(tmp_path_factory.mktemp("alone"))
    run.write_config(plan("", *LONG).runs[0].config)
    interrupted.finish_forked(run)
    return interrupted.science_of(run)


def assert_same(run: RunDir, alone: dict[str, object], starts: int) -> None:
    """Done after so many starts, with the same bits."""
    assert interrupted.science_of(run) == alone
    assert len(json.loads((run.path / "provenance.json").read_bytes())["starts"]) == starts


def test_a_preempted_run_goes_on_to_the_same_bits(
    cluster: Cluster, tmp_path: Path, alone: dict[str, object]
) -> None:
    study = train(slurm(partition="low"), tmp_path, *LONG).study
    wait_for(study, half_way)
    cluster.submit("sleep 2", "--partition=main", "--nodes=4", "--exclusive")
    wait_for(study, lambda found: found[0].state == "queued")
    wait_for_end(study)
    run = the_run(study)
    assert "stopped by SIG" in run.log.read_text()
    assert_same(run, alone, starts=2)


@pytest.mark.usefixtures("cluster")
def test_a_run_whose_time_is_up_goes_on_to_the_same_bits(
    tmp_path: Path, alone: dict[str, object]
) -> None:
    study = train(slurm(time=1), tmp_path, *LONG).study
    wait_for(study, half_way)
    run = the_run(study)
    state = run.state()
    assert state is not None
    os.kill(state.pid, signal.SIGSTOP)  # it would be done before its minute is over
    (claim,) = study.claims()
    (job,) = (array.job for array in claim.arrays)
    log = claim.task_log(str(job))
    wait_until(lambda: "Caught signal SIGUSR2" in log.read_text())
    os.kill(state.pid, signal.SIGCONT)
    wait_for_end(study)
    assert "stopped by SIG" in run.log.read_text()
    assert interrupted.science_of(run) == alone


@pytest.mark.long
def test_a_requeued_run_goes_on_to_the_same_bits(
    cluster: Cluster, tmp_path: Path, alone: dict[str, object]
) -> None:
    submission = train(slurm(), tmp_path, *LONG)
    wait_for(submission.study, half_way)
    cluster.requeue(str(submission.arrays[0].job))
    wait_for(submission.study, lambda found: found[0].state == "queued")
    wait_for_end(submission.study)
    assert_same(the_run(submission.study), alone, starts=2)


@pytest.mark.long
def test_a_run_of_a_failed_node_goes_on_elsewhere_to_the_same_bits(
    cluster: Cluster, tmp_path: Path, alone: dict[str, object]
) -> None:
    study, node = half_way_on_a_node(tmp_path)
    cluster.kill_node(node)
    (again,) = wait_for(study, lambda found: found[0].state == "running")
    assert again.where != node
    wait_for_end(study)
    assert_same(the_run(study), alone, starts=2)


@pytest.mark.long
def test_an_orphan_of_a_failed_node_corrupts_nothing(
    cluster: Cluster, tmp_path: Path, alone: dict[str, object]
) -> None:
    study, node = half_way_on_a_node(tmp_path)
    cluster.kill_node(node, orphans=True)
    pids = cluster.job_processes(node)
    (orphan,) = (pid for pid in pids if b"mpdit.run" in command_of(pid))
    os.kill(orphan, signal.SIGSTOP)  # for as long as the new allocation takes
    run = the_run(study)
    wait_until(lambda: f"taken over from process {orphan} on" in run.log.read_text())
    os.kill(orphan, signal.SIGCONT)
    wait_until(lambda: orphan not in cluster.job_processes(node))
    assert study.claims(), "an orphan releases nothing"
    wait_for_end(study)
    assert_same(the_run(study), alone, starts=2)


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
def test_one_run_on_two_nodes_is_the_run_of_two_processes_here(tmp_path: Path) -> None:
    study = train(slurm(nodes=2), tmp_path).study
    wait_for_end(study)
    run, here = the_run(study), RunDir(tmp_path / "here")
    here.write_config(run.config())
    processes.finish(processes.start([*processes.RUN, str(here.path)], 2), EXIT_DONE)
    assert interrupted.science_of(run) == interrupted.science_of(here)


def test_a_process_that_dies_takes_its_run_with_it(cluster: Cluster, tmp_path: Path) -> None:
    study = train(slurm(nodes=2), tmp_path, *LONG).study
    wait_for(study, half_way)
    first = the_run(study).state()
    assert first is not None
    pids = {pid for node in NODES for pid in cluster.job_processes(node)}
    (other,) = (pid for pid in pids - {first.pid} if b"mpdit.run" in command_of(pid))
    os.kill(other, signal.SIGKILL)
    (status,) = wait_for_end(study)
    assert status.state == "failed"


@pytest.mark.usefixtures("cluster")
def test_a_run_with_an_extension_executes_its_own_copy_on_the_node(tmp_path: Path) -> None:
    idea = ROOT / "experiments" / "ideas" / "sigmoid_attention.py"
    mine = tmp_path / "mine.py"
    mine.write_text(idea.read_text())
    text = f"extensions: [{mine}]\ngrid: {{sigmoid_attention: [true]}}\n"
    study = train(text + slurm(), tmp_path).study
    mine.unlink()  # it may be gone when the job begins
    wait_for_end(study)
    run = the_run(study)
    assert run.is_done(), run.log.read_text()
    assert [one.name for one in run.config().extensions] == ["mine"]
