"""What is left of a submission that sbatch has broken off, and of one that is over."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.disk.files import append_row
from mpdit.disk.rundir import RunState
from mpdit.errors import ConfigError
from mpdit.grid.resources import Resources
from mpdit.study.cancel import Cancelled, cancel
from mpdit.study.cluster.scheduler import Placement, Scheduler
from mpdit.study.cluster.submitter import Submitter
from mpdit.study.reconcile import reconcile
from mpdit.study.screens.logs import show_logs
from mpdit.study.status import read_status, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, submit
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.plans import plan


def test_two_claims_of_one_process_in_one_second_are_two(tmp_path: Path) -> None:
    study = StudyDir(tmp_path)
    for run in ("a", "b"):
        study.new_claim("slurm", [run], job_name=run, arrays=[{"tasks": [[run]]}])[1].close()
    found = {claim.runs: claim.arrays[0].name for claim in study.claims()}
    assert found == {frozenset({"a"}): "a-0", frozenset({"b"}): "b-0"}


@pytest.mark.parametrize(
    "row",
    [
        {"finished": [1]},
        {"arrays": 7},
        {"arrays": [{"tasks": 4}]},
        {"array": [1], "job": {}},
        {"runs": [["b"]]},
        {"cluster": None, "pid": "x"},
    ],
)
def test_a_damaged_row_of_a_claim_is_left_out_and_said(
    tmp_path: Path, row: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    study = StudyDir(tmp_path)
    file, held = study.new_claim("slurm", ["a"], job_name="j", arrays=[{"tasks": [["a"]]}], new=1)
    held.close()
    append_row(file, row)
    append_row(file, {"array": 0, "job": "7"})
    (claim,) = study.claims()
    assert (claim.runs, claim.task_of("a")) == (frozenset({"a"}), "7")
    assert caplog.messages == [f"{file}: 1 row damaged and counted as absent"]


@pytest.mark.parametrize("entry", [5, {}, {"name": 3}, {"name": "b", "id": "1"}, None])
def test_a_damaged_run_of_study_json_is_left_out_and_said(
    tmp_path: Path, entry: object, caplog: pytest.LogCaptureFixture
) -> None:
    whole = {"name": "a", "id": "0", "variant": "v", "seed": 0, "in_grid": True, "added": 1}
    (tmp_path / "study.json").write_text(json.dumps({"runs": [entry, whole]}))
    assert [status.name for status in survey(StudyDir(tmp_path))] == ["a"]
    assert "1 run damaged" in caplog.text


@pytest.mark.parametrize(
    "text",
    [b"\0" * 9, b'{"\x80": 1}', b"null", b"[" * 200_000, b"9" * 6000, b'{"runs": [], "set": 5}'],
)
def test_a_damaged_study_json_is_one_message_and_the_logs_can_be_read(
    tmp_path: Path, text: bytes
) -> None:
    study = StudyDir(tmp_path)
    (tmp_path / "study.json").write_bytes(text)
    with pytest.raises(ConfigError, match=r"is damaged: .* submit the grid again"):
        survey(study)
    run = study.run("a")
    run.path.mkdir()
    run.log.write_bytes(b"step 1\n\x80")
    out = io.StringIO()
    assert show_logs(study, [run.name], out, follow=True) == []
    assert out.getvalue() == "step 1\n\ufffd"


def test_a_notice_that_has_not_come_yet_survives_the_next_submission(tmp_path: Path) -> None:
    study = StudyDir(tmp_path)
    waits, told, over = (study.jobs / name for name in ("a.notice", "b.notice", "b"))
    for folder in (waits, told, over):
        folder.mkdir(parents=True)
        (folder / "7_submitted.pkl").touch()
    (told / "7_0_result.pkl").touch()
    study.drop_dead_claims()
    assert list(study.jobs.iterdir()) == [waits]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("user", "found"), [(os.getuid(), "gone"), (12345, "unknown")])
def test_what_slurm_does_not_show_is_gone_only_to_who_has_submitted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, found: str
) -> None:
    monkeypatch.setattr(slurm, "queue", lambda _: [])
    monkeypatch.setattr(slurm, "accounting", lambda _: None)
    study = StudyDir(tmp_path)
    file, held = study.new_claim("slurm", ["a"], job_name="s", arrays=[{"tasks": [["a"]]}])
    held.close()
    append_row(file, {"array": 0, "job": "7"})
    os.chown(file, user, -1)
    assert Scheduler().look(study.claims())["a"].state == found
    reconcile(study)
    assert (study.claims() == []) == (found == "gone")


SBATCH = """\
#!/bin/sh
calls=$(cat {folder}/calls 2>/dev/null || echo 1)
echo $((calls + 1)) > {folder}/calls
if [ $calls = {fails} ]; then {how}; fi
echo Submitted batch job $calls
"""
TIMED_OUT = "echo sbatch: error: Socket timed out on send/recv operation >&2; exit 1"


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, fails: int, how: str) -> None:
    """An sbatch that fails at its call number ``fails``."""
    for name in ("sbatch", "srun"):
        (folder / name).write_text(SBATCH.format(folder=folder, fails=fails, how=how))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def start(study: StudyDir) -> list[str | None]:
    """Submit three arrays; their jobs."""
    study.path.mkdir()
    wanted = {name: Resources(time=60) for name in "abc"}
    return [array.job for array in Submitter(study, ["true"]).submit(wanted, 1)]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (TIMED_OUT, "sbatch: Socket timed out on send/recv operation"),
        ("echo queued; exit 0", "sbatch printed no job id: 'queued'"),
    ],
)
def test_an_array_at_which_sbatch_fails_stays_claimed_until_slurm_says_whether_it_took_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    how: str,
    said: str,
) -> None:
    pretend(tmp_path, monkeypatch, 2, how)
    study = StudyDir(tmp_path / "s")
    with pytest.raises(ConfigError) as caught:
        start(study)
    assert said in str(caught.value)
    assert "(1 array submitted before that; submit again to add the missing runs)" in str(
        caught.value
    )
    assert capfd.readouterr().err == ""
    (claim,) = study.claims()
    assert claim.runs == {"a", "b"}
    assert [array.job for array in claim.arrays] == ["1", None]


def test_a_notice_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, 0, ":")
    study = StudyDir(tmp_path / "s")
    study.path.mkdir()
    submitter = Submitter(study, ["true"], small=print)
    wanted = {name: Resources(time=60) for name in "abc"}
    (claim,) = {submitter.file for _ in submitter.submit(wanted, 1)}
    submitter.follow_up(wanted["a"], submitter.jobs)
    assert (claim.with_suffix(".notice") / "4_submitted.pkl").exists()
    script = (claim.with_suffix(".notice") / "4_submission.sh").read_text()
    assert "--dependency=afterany:1:2:3\n" in script


def test_a_limit_below_the_number_of_arrays_lets_one_begin_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, 0, ":")
    study = StudyDir(tmp_path)
    wanted = {name: Resources(time=60, extra={"dependency": "singleton"}) for name in "abc"}
    list(Submitter(study, ["true"]).submit(wanted, 1, 2))
    (claim,) = study.claims()
    scripts = [(claim.folder / f"{job}_submission.sh").read_text() for job in (1, 2, 3)]
    said = [[line for line in text.splitlines() if "--dependency" in line] for text in scripts]
    own = "#SBATCH --dependency=singleton"
    assert said == [[own], [own], [f"{own},afterany:1"]]


def test_a_kind_of_gpu_is_asked_for_with_a_process_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, 0, ":")
    study = StudyDir(tmp_path)
    wanted = {"a": Resources(time=60, gpus=2, gpu_type="a100", extra={"gres": "shard:1"})}
    list(Submitter(study, ["true"]).submit(wanted, 1))
    (claim,) = study.claims()
    lines = (claim.folder / "1_submission.sh").read_text().splitlines()
    asked = ("gpus-per-node=a100:2", "ntasks-per-node=2", "gres=shard:1", "requeue")
    assert {f"#SBATCH --{option}" for option in asked} <= set(lines)


@pytest.mark.parametrize("before", [None, "ValueError: of an earlier attempt"])
def test_a_queued_run_that_was_cancelled_is_planned_even_where_slurm_has_forgotten_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    FakeSlurm(monkeypatch, 10)
    made = plan("variants: {a: {}, b: {mp_silu: true}}\nslurm: {time: 5}")
    study = submit(made, tmp_path, Execution("slurm")).study
    chosen, other = (run.name for run in made.runs)
    if before is not None:
        study.run(chosen).write_state(RunState(error=before, heartbeat=1.0))
    assert cancel(study, only=[chosen]) == Cancelled(1, 1)
    states = {status.name: status for status in survey(study)}
    assert (states[chosen].state, states[other].state) == ("planned", "queued")
    again = submit(made, tmp_path, Execution("slurm"))
    assert [status.name for status in again.started] == [chosen]
    assert [status.attempts for status in survey(again.study)] == [(), ()]


def test_the_study_is_named_where_its_own_limit_lets_a_run_wait(tmp_path: Path) -> None:
    entry = {"name": "a", "id": "0", "variant": "v"}
    for reason, told in (("JobArrayTaskLimit", "max_parallel"), ("Priority", "Priority")):
        place = Placement("waiting", "7_1", reason=reason)
        assert read_status(StudyDir(tmp_path).run("a"), entry, place).waits == told


@pytest.mark.parametrize("has_error", [False, True])
def test_the_logs_have_the_jobs_output_where_the_runs_log_lacks_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_error: bool
) -> None:
    fake = FakeSlurm(monkeypatch, 10)
    made = plan("seeds: 1\nslurm: {time: 5}")
    study = submit(made, tmp_path, Execution("slurm")).study
    (name,), (claim,) = [run.name for run in made.runs], study.claims()
    run, error = study.run(name), "slurm_script: line 9: module: command not found"
    run.log.write_text(f"of an earlier attempt\n{error * has_error}\n")
    os.utime(run.log, (1, 1))
    claim.task_log("1").write_text(f"{error}\n")
    fake.end("1", "FAILED")
    if has_error:
        run.write_state(RunState(error=error, heartbeat=time.time() + 9))
    out = io.StringIO()
    assert show_logs(study, [name], out, follow=False) == []
    assert out.getvalue().startswith(run.log.read_text())
    assert out.getvalue().count(error) == 1
