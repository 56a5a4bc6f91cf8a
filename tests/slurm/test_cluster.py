"""The cluster that the other tests here are run on does to jobs what real ones do."""

import pytest

from tests.helpers.slurm.cluster import Cluster, wait_until

slow = pytest.mark.slow  # the studies' tests live on the same, and are in the default run


@slow
def test_a_killed_nodes_jobs_are_requeued_while_their_processes_live_on(cluster: Cluster) -> None:
    word = cluster.folder / "word"
    job = cluster.submit(f"sleep 1; while sleep 0.1; do date +%N > {word}; done", "--nodelist=n2")
    wait_until(word.exists)
    cluster.kill_node("n2", orphans=True)
    cluster.wait_for_state(job, "PENDING")
    said = word.read_text()
    wait_until(lambda: word.read_text() != said)
    assert cluster.job_processes("n2")
    cluster.kill_orphans("n2")
    wait_until(lambda: not cluster.job_processes("n2"))


@pytest.mark.long
def test_a_killed_node_is_one_clusters(cluster: Cluster, bare_cluster: Cluster) -> None:
    job = bare_cluster.submit("sleep 3; exit 7", "--nodelist=n2")
    bare_cluster.wait_for_state(job, "RUNNING")
    cluster.kill_node("n2")
    assert bare_cluster.is_up("n2")
    bare_cluster.wait_for_state(job, "FAILED")


@slow
def test_a_requeued_job_starts_again_in_seconds_and_knows_it(cluster: Cluster) -> None:
    words = cluster.folder / "restarts"
    job = cluster.submit(f"echo ${{SLURM_RESTART_COUNT:-0}} >> {words}; sleep 100")
    wait_until(words.exists)
    cluster.requeue(job)
    wait_until(lambda: words.read_text().split() == ["0", "1"])


@slow
def test_jobs_outlive_the_controller(cluster: Cluster) -> None:
    job = cluster.submit("sleep 14; exit 7", "--no-requeue")
    cluster.wait_for_state(job, "RUNNING")
    cluster.kill_controller()
    cluster.start_controller()
    assert cluster.state(job) == "RUNNING"
    cluster.wait_for_state(job, "FAILED")


@slow
def test_a_cluster_without_accounting_has_none(bare_cluster: Cluster) -> None:
    job = bare_cluster.submit("true")
    bare_cluster.wait_for_state(job, "COMPLETED")
    assert not bare_cluster.succeeds("sacct", "-j", job)
