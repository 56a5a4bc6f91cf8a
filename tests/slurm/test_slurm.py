"""What Slurm is asked, against what it was told."""

import os
import time

import pytest

from mpdit import slurm
from mpdit.errors import ConfigError
from mpdit.grid.resources import Resources
from mpdit.study.cluster import partitions
from tests.helpers.slurm.cluster import Cluster, wait_until


@pytest.fixture(autouse=True)
def _knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_without_accounting", False)
    slurm.calls.clear()


def ended(tasks: set[str]) -> dict[str, slurm.Ended]:
    """What accounting says once it knows of the end of all these: it is told with a delay."""
    jobs = {task.partition("_")[0] for task in tasks}
    wait_until(lambda: (slurm.accounting(jobs) or {}).keys() >= tasks, 30, f"{tasks} have ended")
    return slurm.accounting(jobs) or {}


def test_one_query_names_every_task_of_every_job(cluster: Cluster) -> None:
    array = cluster.submit("sleep 60", "--array=3,5-8%2", "--job-name=a b", "--time=5")
    alone = cluster.submit("sleep 60", "--job-name=alone", "--hold")
    cluster.submit("sleep 60", "--job-name=other")
    wait_until(lambda: cluster.run("squeue", "-h", "-r", "-t", "R", "-j", array).count("\n") == 1)
    slurm.calls.clear()
    tasks = {task.id: task for task in slurm.queue(["a b", "alone"])}
    assert slurm.calls == {"squeue": 1}
    assert tasks.keys() == {alone, *(f"{array}_{index}" for index in (3, 5, 6, 7, 8))}
    running = tasks[f"{array}_3"]
    assert (running.name, running.state, running.reason) == ("a b", "RUNNING", "")
    assert running.nodes in ("n1", "n2", "n3", "n4")
    assert running.elapsed_s < 60
    waiting = tasks[f"{array}_8"]
    assert (waiting.state, waiting.reason) == ("PENDING", "JobArrayTaskLimit")
    assert (waiting.nodes, waiting.elapsed_s) == ("", 0)
    assert tasks[alone].reason == "JobHeldUser"


@pytest.mark.usefixtures("bare_cluster")
def test_nothing_is_asked_about_nothing() -> None:
    assert slurm.queue([]) == []
    assert slurm.accounting([]) == {}
    assert slurm.find_jobs([]) == {}
    slurm.cancel([])
    assert slurm.calls == {}
    assert slurm.queue(["no-such-job"]) == []


def test_the_users_own_habits_change_no_answer(
    bare_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bare_cluster.submit("sleep 60", "--job-name=mine", "--hold")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_FORMAT", "%u")
    assert [task.id for task in slurm.queue(["mine"])] == [job]


def test_a_running_job_is_known_as_such_until_its_end(bare_cluster: Cluster) -> None:
    job = bare_cluster.submit("sleep 60", "--hold")
    assert not slurm.is_running(job)
    bare_cluster.run("scontrol", "release", job)
    bare_cluster.wait_for_state(job, "RUNNING")
    assert slurm.is_running(job)
    bare_cluster.run("scancel", job)
    bare_cluster.wait_for_queue()
    assert not slurm.is_running(job)
    assert not slurm.is_running("1")


def test_a_tasks_own_id_tells_whether_it_is_running(bare_cluster: Cluster) -> None:
    """SLURM_JOB_ID, which is not JOB_INDEX."""
    file = bare_cluster.folder / "ids"
    bare_cluster.submit(f"echo $SLURM_JOB_ID >> {file}; sleep $SLURM_ARRAY_TASK_ID", "--array=1,60")
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2)
    ids = file.read_text().split()
    wait_until(lambda: [slurm.is_running(job) for job in ids].count(True) == 1)


def test_accounting_says_how_each_task_ended(cluster: Cluster) -> None:
    codes = cluster.submit("exit $SLURM_ARRAY_TASK_ID", "--array=0,3")
    killed = cluster.submit("kill -TERM $$")
    never = cluster.submit("true", "--array=2-3,7", "--hold")
    alive = cluster.submit("sleep 60")
    cluster.wait_for_state(alive, "RUNNING")
    cluster.run("scancel", never)
    ended({f"{codes}_0", f"{codes}_3", killed, *(f"{never}_{index}" for index in (2, 3, 7))})
    slurm.calls.clear()
    known = slurm.accounting([codes, killed, never, alive])
    assert slurm.calls == {"sacct": 1}
    assert known is not None
    assert alive not in known
    words = {task: end.state for task, end in known.items()}
    assert words == {
        f"{codes}_0": "COMPLETED",
        f"{codes}_3": "FAILED",
        killed: "FAILED",
        **{f"{never}_{index}": "CANCELLED" for index in (2, 3, 7)},
    }
    assert known[f"{codes}_3"].nodes in ("n1", "n2", "n3", "n4")


def test_a_job_that_was_requeued_has_not_ended(cluster: Cluster) -> None:
    job = cluster.submit("sleep 60")
    cluster.wait_for_state(job, "RUNNING")
    cluster.requeue(job)
    time.sleep(3)
    assert slurm.accounting([job]) == {}


def test_without_accounting_that_is_found_out_once(bare_cluster: Cluster) -> None:
    job = bare_cluster.submit("true")
    assert slurm.accounting([job]) is None
    assert slurm.accounting([job]) is None
    assert slurm.calls == {"sacct": 1}


def test_a_silent_database_is_not_taken_for_none(cluster: Cluster) -> None:
    cluster.kill_database()
    try:
        with pytest.raises(ConfigError, match=r"sacct: .*Connection refused"):
            slurm.accounting(["1"])
    finally:
        cluster.start_database()
    wait_until(lambda: slurm.accounting(["1"]) == {})


def submit_named(cluster: Cluster) -> dict[str, str]:
    """An array that runs, and a job that is over: name → id."""
    array = cluster.submit("sleep 60", "--array=0-3", "--job-name=some.study-1")
    over = cluster.submit("true", "--job-name=some.study-2")
    cluster.wait_for_state(over, "COMPLETED")
    return {"some.study-1": array, "some.study-2": over}


def test_jobs_are_found_by_their_names(bare_cluster: Cluster) -> None:
    jobs = submit_named(bare_cluster)
    assert slurm.find_jobs(["some.study-1", "some.study-2", "nobody"]) == jobs


def test_jobs_that_the_controller_has_forgotten_are_found_by_accounting(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = submit_named(cluster)
    assert slurm.find_jobs(jobs) == jobs
    assert slurm.calls == {"squeue": 1}
    monkeypatch.setattr(slurm, "_squeue", lambda *_, **__: "")  # some minutes after their end
    wait_until(lambda: slurm.find_jobs([*jobs, "nobody"]) == jobs)


@pytest.mark.usefixtures("cluster")
def test_the_clusters_limit_is_read() -> None:
    assert slurm.largest_array() == 1001
    assert slurm.calls == {"scontrol": 1}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"partition": "mian"},
            "slurm.partition: partition 'mian' does not exist. Did you mean 'main'?",
        ),
        ({"partition": "main,lo"}, "partition 'lo' does not exist. Did you mean 'low'?"),
        ({"partition": "gpu"}, "Known: closed, low, main"),
        ({"time": 1441}, "slurm.time: 1441 minutes exceed the limit of partition main"),
        ({"partition": "main", "time": 1441}, "main: 1-00:00:00"),
        ({"partition": "closed", "account": "theirs"}, "slurm.account: 'theirs' may not use"),
        ({"partition": "closed", "qos": "urgent"}, "slurm.qos: 'urgent' may not use partition clo"),
    ],
)
def test_a_request_that_the_partitions_cannot_meet_is_refused(
    bare_cluster: Cluster, request_: dict[str, object], message: str
) -> None:
    bare_cluster.run(
        *("scontrol", "create", "PartitionName=closed", "Nodes=n4"),
        *("AllowAccounts=ours,others", "AllowQos=normal", "Hidden=YES"),
    )
    try:
        with pytest.raises(ConfigError) as raised:
            partitions.check([Resources(), Resources(**request_)], partitions.read())
    finally:
        bare_cluster.run("scontrol", "delete", "PartitionName=closed")
    assert message in str(raised.value)
    assert slurm.calls == {"scontrol": 1}


@pytest.mark.usefixtures("bare_cluster")
def test_a_request_that_some_partition_can_meet_is_accepted() -> None:
    long = Resources(partition="main,low", time=3000)
    named = Resources(partition="main", account="a", qos="q")
    partitions.check([Resources(), long, named], partitions.read())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--gres=gpu:3", "node configuration is not available"),
        ("--mem=20G", "node configuration is not available"),
        ("--constraint=a100", "Invalid feature"),
        ("--no-such-option", "no-such-option"),
    ],
)
def test_sbatch_judges_the_rest_and_submits_nothing(
    bare_cluster: Cluster, option: str, message: str
) -> None:
    name = "--job-name=rehearsed"
    slurm.rehearse([name, "--gres=gpu:2", "--mem=1G"])
    with pytest.raises(ConfigError, match=message):
        slurm.rehearse([name, option])
    assert not bare_cluster.run("squeue", "-h", "-t", "all", "-n", "rehearsed")


def test_jobs_and_single_tasks_are_cancelled_in_one_call(bare_cluster: Cluster) -> None:
    array = bare_cluster.submit("sleep 60", "--array=0-9%4", "--job-name=these")
    other = bare_cluster.submit("sleep 60", "--job-name=these")
    bare_cluster.wait_for_state(other, "RUNNING")
    slurm.calls.clear()
    slurm.cancel([f"{array}_1", f"{array}_8", other, "1", "1_3"])
    assert slurm.calls == {"scancel": 1}
    left = {f"{array}_{index}" for index in (0, 2, 3, 4, 5, 6, 7, 9)}
    wait_until(lambda: {task.id for task in slurm.queue(["these"])} == left)


def test_cancelling_very_many_tasks_is_no_longer_a_command_than_there_can_be(
    bare_cluster: Cluster,
) -> None:
    job = bare_cluster.submit("sleep 60", "--array=0-999%1", "--job-name=many")
    slurm.cancel([f"{job}_{index}" for index in range(1000)] + [str(n) for n in range(1, 3000)])
    assert slurm.calls["scancel"] == 30
    wait_until(lambda: not slurm.queue(["many"]))


def test_a_dead_controller_is_one_clear_message(bare_cluster: Cluster) -> None:
    bare_cluster.stop_controller()
    with pytest.raises(ConfigError, match="Slurm's controller does not answer") as raised:
        slurm.queue(["a"])
    assert "\n" not in str(raised.value)


def test_without_slurm_that_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert not slurm.is_available()
    with pytest.raises(ConfigError, match="squeue not found"):
        slurm.queue(["a"])


def test_a_command_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bin")
    (folder / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.5)
    with pytest.raises(ConfigError, match="Slurm does not answer: squeue timed out"):
        slurm.queue(["a"])
