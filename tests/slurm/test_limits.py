"""Sites with limits and rules of their own: what Slurm says is told, and the study goes on."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.errors import ConfigError
from mpdit.study import waiting
from mpdit.study.feed import feed
from mpdit.study.studydir import StudyDir
from tests.helpers.slurm.cluster import Cluster, wait_until
from tests.helpers.slurm.studies import (
    BASE,
    assert_done_once,
    launch,
    look,
    start,
    wait_for_end,
)

MEMORY = "memory: 200M"


@pytest.fixture(scope="module")  # it restarts the controller
def limited(cluster: Cluster) -> Iterator[None]:
    """Three jobs a user, and no more."""
    for words in ("account a", "user root account=a"):
        cluster.succeeds("sacctmgr", "-i", "add", *words.split())  # it is there the second time
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=3")
    with cluster.configured(AccountingStorageEnforce="limits"):
        yield
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")


def allow(cluster: Cluster, jobs: int) -> None:
    """So many jobs a user; return when the controller knows it."""
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={jobs}")
    show = ("scontrol", "show", "assoc_mgr", "users=root", "flags=assoc")
    wait_until(lambda: re.search(rf"MaxSubmitJobs={jobs}\b", cluster.run(*show)) is not None)


@pytest.mark.long
@pytest.mark.usefixtures("limited")
def test_more_runs_than_a_user_may_submit_are_fed_while_one_waits(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(f"{BASE}seeds: 7\nslurm: {{{MEMORY}}}\n")
    said = launch(tmp_path, "submit", "grid.yaml", "--wait")
    assert "s: 2 runs submitted" in said
    assert "Slurm has no room for 5 of 7 runs (AssocMaxSubmitJobLimit)" in said
    assert "s: 7 of 7 done after" in said
    assert_done_once(StudyDir(tmp_path / "results" / "s"), 7)


@pytest.mark.long
@pytest.mark.usefixtures("limited")
def test_more_runs_than_a_user_may_submit_are_fed_by_a_job_and_their_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "AGAIN", "now+1")
    study = start(f"seeds: 6\nslurm: {{{MEMORY}}}", tmp_path, 'echo "$MPDIT_SUMMARY" > told').study
    assert [status.state for status in look(study)].count("waiting") == 4
    wait_for_end(study, 240)
    assert_done_once(study, 6)
    told = study.path / "told"
    wait_until(lambda: told.exists() and bool(told.read_text()))
    assert told.read_text() == "s: 6 of 6 done\n"


@pytest.mark.usefixtures("limited")
def test_room_for_one_job_is_a_runs_own(cluster: Cluster, tmp_path: Path) -> None:
    allow(cluster, 1)
    try:
        done = start(f"seeds: 2\nslurm: {{{MEMORY}, extra: {{hold: true}}}}", tmp_path)
        assert sorted(status.state for status in look(done.study)) == ["held", "waiting"]
        assert not done.continues
    finally:
        allow(cluster, 3)


@pytest.mark.long
def test_a_controller_whose_queue_is_full_holds_nobody_up(
    bare_cluster: Cluster, tmp_path: Path
) -> None:
    with bare_cluster.configured(MaxJobCount="5", MinJobAge="2"):
        began = time.monotonic()
        study = start(f"seeds: 7\nslurm: {{{MEMORY}}}", tmp_path).study
        assert time.monotonic() - began < 20  # sbatch alone would try for two minutes
        found = look(study)
        assert {status.waits for status in found if status.state == "waiting"} == {"MaxJobCount"}

        def is_fed() -> bool:
            feed(study)
            return not any(status.is_active for status in look(study))

        wait_until(is_fed, 120)
        assert_done_once(study, 7)


RULE = """\
function slurm_job_submit(job, _, _)
  if job.comment ~= "ours" then
    slurm.log_user("Say whose job it is:\\n  --comment=ours\\27[0m")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end
function slurm_job_modify() return slurm.SUCCESS end
"""


def test_a_sites_own_explanation_is_told_whole(bare_cluster: Cluster, tmp_path: Path) -> None:
    (bare_cluster.folder / "job_submit.lua").write_text(RULE)
    with bare_cluster.configured(JobSubmitPlugins="lua"):
        with pytest.raises(ConfigError) as caught:
            start(f"slurm: {{{MEMORY}}}", tmp_path)
        study = start(f"slurm: {{{MEMORY}, extra: {{comment: ours}}}}", tmp_path).study
        wait_for_end(study)
    assert "sbatch: Say whose job it is:; --comment=ours; " in str(caught.value)
    assert str(caught.value).isprintable()


def launch_failure(folder: Path, reasons: str) -> None:
    """A job whose node cannot open its files has failed for that reason, and is tried elsewhere."""
    text = f"slurm: {{{MEMORY}, retry: 1, extra: {{begin: now+3}}}}"
    study = start(text, folder).study
    (claim,) = study.claims()
    shutil.rmtree(claim.folder)
    (status,) = wait_for_end(study)
    assert (status.state, status.cause) == ("failed", "node failed")
    assert status.error is not None
    assert re.search(reasons, status.error)
    (fed,) = feed(study)
    assert feed(study) == []
    excluded = slurm.run("squeue", "-h", f"--jobs={fed.arrays[0].job}", "--format=%x").strip()
    assert status.error.startswith(f"node failed on {excluded}: ")
    wait_for_end(study)
    assert_done_once(study, 1)


@pytest.mark.usefixtures("cluster")
def test_a_node_that_cannot_open_the_jobs_files_is_named_and_avoided(tmp_path: Path) -> None:
    launch_failure(tmp_path, "FAILED, (exit 0:53|JobLaunchFailure)")  # from sacct once it knows


@pytest.mark.long
@pytest.mark.usefixtures("bare_cluster")
def test_it_is_without_accounting_too(tmp_path: Path) -> None:
    launch_failure(tmp_path, "FAILED, JobLaunchFailure")
