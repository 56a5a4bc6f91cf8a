"""A node that is cut off keeps its processes; the requeued job goes on all the same."""

import os
import signal
import sys
from pathlib import Path

import pytest
from interrupted import finish_forked, make, science_of

from mpdit.study.rundir import read_rows

from .cluster import Cluster, wait_until


def test_a_run_whose_node_was_cut_off_comes_to_the_same_bits_elsewhere(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cluster.environment, "MPDIT_THREADS", "1")
    long = {"train": {"steps": 480, "checkpoint_every": 7, "log_every": 3}}
    whole, run = make(tmp_path / "whole", **long), make(tmp_path / "run", **long)
    finish_forked(whole)
    job = cluster.submit(f"exec {sys.executable} -m mpdit.run {run.path}")
    wait_until(lambda: len(read_rows(run.path / "metrics.jsonl")) > 8)
    node = cluster.run("squeue", "-h", "-j", job, "-o", "%N")
    cluster.kill_node(node, orphans=True)
    (orphan,) = cluster.job_processes(node)
    os.kill(orphan, signal.SIGSTOP)  # for as long as the new job takes to start
    assert not run.is_done()
    wait_until(lambda: "taken over from process" in run.log.read_text(), 60)
    assert f"taken over from process {orphan} on" in run.log.read_text()
    os.kill(orphan, signal.SIGCONT)
    wait_until(lambda: not cluster.job_processes(node), 10, "the orphan has ended")
    wait_until(run.is_done, 60)
    assert "going on from step" in run.log.read_text()
    assert "it has not ended" not in run.log.read_text()
    assert science_of(run) == science_of(whole)
