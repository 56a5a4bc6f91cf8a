"""What a run was short of, it has more of when it is retried by itself; everything is recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.study.cancel import cancel
from mpdit.study.feed import feed
from mpdit.study.retry import STATES, adjust
from mpdit.study.screens.statustable import status_lines
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, stored_plan, submit
from mpdit.text import PLAIN
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.plans import plan

TEXT = "slurm: {time: 100, memory: 4G, retry: 2}"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(monkeypatch, 100)


def start(folder: Path, text: str = TEXT, retry: int | None = None) -> StudyDir:
    return submit(plan(text), folder, Execution("slurm", retry=retry)).study


def look(study: StudyDir) -> RunStatus:
    (status,) = survey(StudyDir(study.path))
    return status


def fail(study: StudyDir, fake: FakeSlurm, *ended: str) -> str:
    """Let the run's task end like this, and feed; the script of the retry, '' without one."""
    fake.end(str(look(study).job), *ended)
    fed = feed(study)
    return fake.scripts[str(fed[0].arrays[0].job)] if fed else ""


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("OUT_OF_MEMORY", ("--mem=8G", "--time=100")),
        ("TIMEOUT", ("--mem=4G", "--time=180")),  # its partition's limit
        ("NODE_FAIL", ("--mem=4G", "--time=100", "--exclude=n1")),
        ("BOOT_FAIL", ("--mem=4G", "--time=100", "--exclude=n1")),
    ],
)
def test_each_cause_has_its_remedy(
    tmp_path: Path, fake: FakeSlurm, state: str, expected: tuple[str, ...]
) -> None:
    script = fail(start(tmp_path), fake, state)
    assert {f"#SBATCH {option}" for option in expected} <= set(script.splitlines())


def test_memory_for_each_cpu_is_doubled_too(tmp_path: Path, fake: FakeSlurm) -> None:
    study = start(tmp_path, "slurm: {time: 5, retry: 1, extra: {mem-per-cpu: 3G}}")
    assert "#SBATCH --mem-per-cpu=6G" in fail(study, fake, "OUT_OF_MEMORY").splitlines()


@pytest.mark.parametrize("state", ["FAILED", "DEADLINE", "CANCELLED", "COMPLETED"])
def test_what_no_resource_would_mend_is_left(tmp_path: Path, fake: FakeSlurm, state: str) -> None:
    assert fail(start(tmp_path), fake, state) == ""


def test_a_node_that_cannot_start_the_job_is_avoided(tmp_path: Path, fake: FakeSlurm) -> None:
    script = fail(start(tmp_path), fake, "FAILED", "n3", "exit 0:53")
    assert "#SBATCH --exclude=n3" in script.splitlines()


def test_the_number_of_retries_is_bounded_and_every_attempt_is_kept(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    study = start(tmp_path)
    assert "--mem=8G" in fail(study, fake, "OUT_OF_MEMORY")
    script = fail(study, fake, "NODE_FAIL", "n2")
    assert "--mem=8G" in script
    assert "--exclude=n2" in script
    assert fail(study, fake, "OUT_OF_MEMORY") == ""
    status = look(study)
    assert (status.state, status.retries) == ("failed", 0)
    kept = [(a["error"].partition(":")[0], a["memory"]) for a in status.attempts]
    assert kept == [("out of memory", "4G"), ("node failed on n2", "8G")]
    (_, line) = status_lines([status], PLAIN)
    assert "attempt 3, after out of memory: (OUT_OF_MEMORY" in line


def test_the_command_line_says_how_often(tmp_path: Path, fake: FakeSlurm) -> None:
    study = start(tmp_path, "slurm: {time: 5, memory: 1G}", retry=1)
    assert look(study).retries == 1
    assert "--mem=2G" in fail(study, fake, "OUT_OF_MEMORY")
    assert fail(study, fake, "OUT_OF_MEMORY") == ""


def test_without_it_nothing_is_retried(tmp_path: Path, fake: FakeSlurm) -> None:
    assert fail(start(tmp_path, "slurm: {time: 5, memory: 1G}"), fake, "OUT_OF_MEMORY") == ""


def test_a_study_with_retries_has_a_job_that_continues_it(tmp_path: Path, fake: FakeSlurm) -> None:
    start(tmp_path)
    _, small = fake.scripts.values()
    assert "#SBATCH --dependency=afterany:1" in small.splitlines()


def test_what_no_node_has_is_not_asked_for_and_others_are_retried(
    tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rehearse(options: list[str]) -> None:
        if "--mem=32G" in options:
            raise slurm.RefusedError("sbatch: Requested node configuration is not available")

    monkeypatch.setattr(slurm, "rehearse", rehearse)
    monkeypatch.setattr(slurm, "has_nodes", lambda _: True)
    variants = "variants: {a: {slurm: {memory: 16G}}, b: {mp_silu: true}}"
    study = start(tmp_path, f"{variants}\n{TEXT}")
    for status in survey(study):
        fake.end(str(status.job), "OUT_OF_MEMORY")
    (fed,) = feed(study)
    assert [status.variant for status in fed.started] == ["b"]


def test_what_was_cancelled_is_not_retried(tmp_path: Path, fake: FakeSlurm) -> None:
    study = start(tmp_path)
    fake.end(str(look(study).job), "OUT_OF_MEMORY")
    assert look(study).retries == 2
    cancel(study, patience_s=0)
    assert feed(study) == []
    assert look(study).state == "failed"


def test_a_retry_keeps_what_a_retry_by_hand_has_set(tmp_path: Path, fake: FakeSlurm) -> None:
    study = start(tmp_path)
    fake.end(str(look(study).job), "FAILED")
    more = partial(adjust, study=study, time=None, memory=None, sets=["slurm.partition=main"])
    submit(stored_plan(study), tmp_path, Execution("slurm"), states=STATES, adjust=more)
    assert "#SBATCH --partition=main" in fail(study, fake, "OUT_OF_MEMORY").splitlines()
