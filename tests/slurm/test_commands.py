"""What a person types, on a real Slurm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mpdit.study.studydir import StudyDir
from tests.helpers.slurm.cluster import Cluster, wait_until
from tests.helpers.slurm.studies import (
    BASE,
    all_running,
    assert_done_once,
    command_of,
    launch,
    look,
    start,
    wait_for,
    wait_for_end,
)

pytestmark = pytest.mark.usefixtures("cluster")

MEMORY = "memory: 200M"


def without_names(script: str) -> str:
    """A script without what no two submissions have in common: the claim, and the job's name."""
    anywhere = re.sub(r"(/\.jobs/)[^/\s]+", r"\1CLAIM", script)
    return re.sub(r"(--job-name=s-)\S+(-\d+)", r"\1\2", anywhere).strip()


def test_a_dry_run_shows_the_scripts_that_are_submitted(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        f"{BASE}variants: {{a: {{}}, b: {{mp_silu: true, slurm: {{gpus: 2, nodes: 2}}}}}}\n"
        f"seeds: 2\n"
        f"slurm: {{{MEMORY}, time: 5, max_parallel: 1, extra: {{hold: true, nice: 3}}}}\n"
    )
    said = launch(tmp_path, "grid.yaml", "--dry-run")
    assert [file.name for file in tmp_path.iterdir()] == ["grid.yaml"]
    shown = re.findall(r"^(#!/bin/bash.*?)^# task 0:", said, re.DOTALL | re.MULTILINE)
    launch(tmp_path, "grid.yaml")
    sent = sorted(StudyDir(tmp_path / "results" / "s").jobs.glob("*/*_submission.sh"))
    assert len(sent) == 2
    assert [*map(without_names, shown)] == [without_names(file.read_text()) for file in sent]
    assert "#SBATCH --array=0-1%1" in shown[0]


@pytest.mark.long
def test_what_is_submitted_from_within_a_job_inherits_nothing_of_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "grid.yaml").write_text(f"{BASE}variants: {{steady: {{}}}}\nslurm: {{{MEMORY}}}\n")
    of_the_job = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "3", "SLURM_INHERITED": "yes"}
    launch(tmp_path, "grid.yaml", **of_the_job, SBATCH_OUTPUT="elsewhere", SBATCH_GPUS="2")
    (status,) = wait_for(StudyDir(tmp_path / "results" / "s"), all_running)
    asked = cluster.run("squeue", "-h", "-j", str(status.job), "-o", "%P %C %N").split()
    assert asked[:2] == ["main", "1"]
    pids = cluster.job_processes(asked[2])
    (run,) = (pid for pid in pids if b"stand_in" in command_of(pid))
    assert b"SLURM_INHERITED" not in Path(f"/proc/{run}/environ").read_bytes()


ODD = r"""/a b #c ~ k=v 'd' \ "e" """.strip()


def test_a_sites_defaults_setup_and_options_reach_the_runs(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "mpdit").mkdir()
    (tmp_path / "mpdit" / "slurm.yaml").write_text(f"{MEMORY}\ntime: 7\n")
    (tmp_path / "grid.yaml").write_text(
        f"{BASE}variants:\n  steady: {{}}\n"
        "  stopped: {mp_silu: true, slurm: {setup: [nonsense --now]}}\n"
        "slurm:\n  setup: ['export FROM_SETUP=\"a b\"']\n  extra: {export: NONE}\n"
    )
    site = {"XDG_CONFIG_HOME": str(tmp_path), "SBATCH_PARTITION": "low", "SBATCH_WCKEY": "other"}
    launch(tmp_path, "grid.yaml", "--set", f"slurm.extra.comment={ODD}", **site)
    study = StudyDir(tmp_path / "results" / "s")
    steady, _ = wait_for(study, lambda found: all_running(found[:1]) and not found[1].is_active)
    job = cluster.run("scontrol", "show", "job", str(steady.job)).splitlines()
    words = [word for line in job for word in line.split()]
    assert {"Partition=low", "WCKey=other", "TimeLimit=00:07:00"} <= set(words)
    assert f"Comment={ODD}" in map(str.strip, job)
    pids = cluster.job_processes(str(steady.where))
    (run,) = (pid for pid in pids if b"stand_in" in command_of(pid))
    environment = Path(f"/proc/{run}/environ").read_bytes().split(b"\0")
    assert {b"FROM_SETUP=a b", b"SBATCH_PARTITION=low"} <= set(environment)
    stopped = look(study)[1]
    assert (stopped.cause, "nonsense: command not found" in str(stopped.error)) == ("failed", True)
    with pytest.raises(AssertionError, match=r"SBATCH_ACCOUNT: slurm\.account.*Invalid account"):
        launch(tmp_path, "grid.yaml", "--set", "seeds=2", **site, SBATCH_ACCOUNT="nobody")


def test_half_a_study_is_cancelled_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        f"{BASE}variants: {{a: {{}}, b: {{mp_silu: true}}, steady: {{mp_residual: true}},"
        f" d: {{cosine_attention: true}}}}\nslurm: {{{MEMORY}, max_parallel: 1}}\n"
    )
    launch(tmp_path, "grid.yaml")
    study = StudyDir(tmp_path / "results" / "s")
    wait_for(study, lambda found: all_running(found[2:3]))
    assert "waiting in Slurm: 1 (max_parallel)" in launch(tmp_path, "status", "s")
    said = launch(tmp_path, "cancel", "s")
    assert said == "stopped; 2 of 4 done, 1 interrupted, 1 planned\n"
    again = launch(tmp_path, "submit", "grid.yaml", "--wait")
    assert "s: 2 runs submitted" in again
    assert "s: 4 of 4 done after" in again
    assert_done_once(study, 4)


@pytest.mark.long
def test_the_log_of_a_run_that_waits_is_followed_to_its_end(tmp_path: Path) -> None:
    later = f"slurm: {{{MEMORY}, extra: {{begin: now+4}}}}"
    text = f"variants: {{raises: {{}}, b: {{mp_silu: true}}}}\n{later}"
    study = start(text, tmp_path / "results").study
    (failing, waiting) = (status.name for status in look(study))
    said = launch(tmp_path, "logs", waiting, "--follow")
    assert re.fullmatch(
        rf"{waiting} has not written a log yet: job \d+_1 waits( \(BeginTime\))?\n"
        rf"{waiting} begins at step 0\n",
        said,
    )
    wait_for_end(study)
    said = launch(tmp_path, "logs", failing, "--follow")
    assert said.endswith("RuntimeError: a first time always fails\n")


def test_a_failed_run_is_tried_again(tmp_path: Path) -> None:
    text = f"variants: {{raises: {{}}, good: {{mp_silu: true}}}}\nslurm: {{{MEMORY}}}"
    study = start(text, tmp_path / "results").study
    wait_for_end(study)
    said = launch(tmp_path, "retry", "s", "--time", "5", "--memory", "x2", "--wait")
    assert "s: 1 run submitted" in said
    assert "s: 1 of 1 done after" in said
    assert_done_once(study, 2)
    table = {entry["variant"]: entry["submitted"] for entry in StudyDir(study.path).entries}
    assert (table["raises"]["time"], table["raises"]["memory"]) == (5, "400M")
    assert table["good"]["memory"] == "200M"


def test_a_finished_study_is_submitted_again_without_asking_slurm(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(f"{BASE}slurm: {{{MEMORY}}}\n")
    study = start(f"slurm: {{{MEMORY}}}", tmp_path / "results").study
    wait_for_end(study)
    wait_until(lambda: not study.claims())
    said = launch(tmp_path, "grid.yaml", SLURM_CONF="/nowhere")
    assert "nothing to submit; left alone: 1 done" in said
