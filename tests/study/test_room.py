"""Slurm accepts fewer jobs than the study has runs: the others wait, and are fed."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mpdit import slurm
from mpdit.disk import codefiles
from mpdit.disk.files import append_row
from mpdit.study import codesnapshot, notice
from mpdit.study.cancel import cancel
from mpdit.study.feed import feed
from mpdit.study.hold import hold, release
from mpdit.study.screens.messages import announcement
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, submit
from mpdit.text import PLAIN
from tests.helpers.fake_slurm import LIMIT, FakeSlurm
from tests.helpers.plans import plan


@pytest.fixture(autouse=True)
def _usr2() -> Iterator[None]:
    """The small job ignores it."""
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)


def start(folder: Path, text: str, **how: object) -> Submission:
    return submit(plan(text), folder, Execution("slurm", **how))  # type: ignore[arg-type]


def states(study: StudyDir) -> Counter[str]:
    return Counter(status.state for status in look(study))


def look(study: StudyDir) -> list[RunStatus]:
    return survey(StudyDir(study.path))


def finish(study: StudyDir, fake: FakeSlurm, tasks: int) -> None:
    """Let so many of the study's tasks end, with their runs done."""
    busy = [status for status in look(study) if status.state == "queued"][:tasks]
    for status in busy:
        fake.end(str(status.job), "COMPLETED")
        append_row(study.run(status.name).path / "evaluation.jsonl", {"value": 1.0})


@pytest.mark.parametrize("room", [1, 2, 5, 7, 8, 13])
def test_all_the_room_is_used_and_the_other_runs_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    fake = FakeSlurm(monkeypatch, room)
    done = start(tmp_path, "seeds: 13\nslurm: {time: 5}")
    assert len(fake.tasks) == room
    in_job = room - len(done.started)  # the small job that continues, where there is room for both
    assert in_job == done.continues == (1 < room < 13)
    assert states(done.study) == Counter(queued=len(done.started), waiting=len(done.waiting))
    assert len(fake.refused) <= 5
    assert {status.waits for status in look(done.study) if status.state == "waiting"} <= {LIMIT}


def test_the_states_are_known_while_a_submission_waits_for_slurms_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 2)
    seen: list[Counter[str]] = []
    with ThreadPoolExecutor(1) as other:

        def submit_slowly(script: Path) -> tuple[str, list[str]]:
            seen.append(other.submit(states, StudyDir(tmp_path / "s")).result(timeout=20))
            return fake.submit(script)

        monkeypatch.setattr(slurm, "submit", submit_slowly)
        start(tmp_path, "seeds: 3\nslurm: {time: 5}")
    assert seen[0] == Counter(queued=3)
    assert seen[-1] == Counter(queued=2, waiting=1)  # one of them is just being submitted


def test_one_message_says_how_many_wait_and_how_they_are_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(monkeypatch, 5)
    first, limit, how = announcement(start(tmp_path, "seeds: 8\nslurm: {time: 5}"), PLAIN)
    assert first.startswith("s: 4 runs submitted, 4 tasks in ")
    assert f"no room for 4 of 8 runs ({LIMIT})" in limit
    assert "by a small job of the study, by submit --wait, status --watch" in how


def test_a_study_is_fed_to_its_end_with_one_refused_call_where_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 4)
    study = start(tmp_path, "seeds: 9\nslurm: {time: 5}").study
    fake.refused.clear()
    assert feed(study) == []
    assert fake.refused == [1]
    while states(study)["waiting"]:
        finish(study, fake, 2)
        (fed,) = feed(study)
        assert 1 <= len(fed.started) <= 2
        assert len(fake.tasks) <= 4
    finish(study, fake, 9)
    assert feed(study) == []
    assert states(study) == Counter(done=9)


def test_the_next_submit_feeds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSlurm(monkeypatch, 2)
    study = start(tmp_path, "seeds: 3\nslurm: {time: 5}").study
    fake.room = 10
    again = start(tmp_path, "seeds: 3\nslurm: {time: 5}")
    assert len(again.started) == 2
    assert states(study) == Counter(queued=3)


@pytest.mark.parametrize(
    ("resources", "max_parallel"), [("time: 5, max_parallel: 2", None), ("time: 5", 2)]
)
def test_feeding_keeps_to_the_number_of_runs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: str, max_parallel: int | None
) -> None:
    fake = FakeSlurm(monkeypatch, 5)
    text = f"seeds: 8\nslurm: {{{resources}}}"
    study = start(tmp_path, text, max_parallel=max_parallel).study
    assert states(study) == Counter(queued=4, waiting=4)
    assert "%2" in fake.scripts["2"]  # after the small job
    finish(study, fake, 2)
    assert feed(study) == []  # two are left, which may run at once
    finish(study, fake, 1)
    assert [len(fed.started) for fed in feed(study)] == [1]


def test_where_one_limit_is_reached_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 100)
    accept = fake.submit

    def submit_to(script: Path) -> tuple[str, list[str]]:
        monkeypatch.setattr(fake, "room", 0 if "--qos=tiny" in script.read_text() else 100)
        return accept(script)

    monkeypatch.setattr(slurm, "submit", submit_to)
    text = "variants: {a: {slurm: {qos: tiny}}, b: {mp_silu: true}}\nseeds: 2\nslurm: {time: 5}"
    found = look(start(tmp_path, text).study)
    assert {(status.variant, status.state) for status in found} == {
        ("a", "waiting"),
        ("b", "queued"),
    }


def test_a_cancelled_study_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(monkeypatch, 0)
    study = start(tmp_path, "seeds: 3\nslurm: {time: 5}").study
    assert states(study) == Counter(waiting=3)
    assert cancel(study).stopped == 3
    assert feed(study) == []
    assert states(study) == Counter(planned=3)


def test_a_refusal_for_another_reason_leaves_nothing_queued_or_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(monkeypatch, 5)

    def refuse(_script: Path) -> tuple[str, list[str]]:
        raise slurm.RefusedError("sbatch: use your own account")

    monkeypatch.setattr(slurm, "submit", refuse)
    with pytest.raises(slurm.ConfigError, match="use your own account"):
        start(tmp_path, "seeds: 3\nslurm: {time: 5}")
    assert states(StudyDir(tmp_path / "s")) == Counter(planned=3)


def test_when_only_the_notice_is_refused_the_runs_are_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(monkeypatch, 3)
    with pytest.raises(slurm.ConfigError, match="All runs were submitted, but Slurm rejected"):
        start(tmp_path, "seeds: 3\nslurm: {time: 5}", on_end="true")
    assert states(StudyDir(tmp_path / "s")) == Counter(queued=3)


def test_the_small_job_requeues_itself_until_the_study_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 3)
    done = start(tmp_path, "seeds: 4\nslurm: {time: 5}")
    study, runs = done.study, done.runs
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "run", lambda *words: asked.append(words) or "")
    monkeypatch.setattr(notice, "FEED", ("true",))
    monkeypatch.setattr(notice, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    notice.follow_up(study.path, runs, 'echo "$MPDIT_SUMMARY" > told')
    first, second = (str(status.job) for status in look(study) if status.state == "queued")
    later = f"Dependency=afterany:{first}?afterany:{second}"
    assert asked == [("scontrol", "requeue", "42"), ("scontrol", "update", "JobId=42", later)]
    finish(study, fake, 2)
    fake.room = 10
    feed(study)
    finish(study, fake, 2)
    assert not (study.path / "told").exists()
    notice.follow_up(study.path, runs, 'echo "$MPDIT_SUMMARY" > told')
    assert (study.path / "told").read_text() == "s: 4 of 4 done\n"


def test_a_study_has_one_small_job_however_often_it_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 3)
    study = start(tmp_path, "seeds: 6\nslurm: {time: 5}").study
    for _ in range(2):
        finish(study, fake, 1)
        again = start(tmp_path, "seeds: 6\nslurm: {time: 5}")
        assert again.continues
        assert states(study)["queued"] == 2
    fake.end(next(task for task, name in fake.tasks.items() if name.endswith("-end")), "CANCELLED")
    assert start(tmp_path, "seeds: 6\nslurm: {time: 5}").continues
    assert [name.endswith("-end") for name in fake.tasks.values()].count(True) == 1


def test_the_small_job_of_one_submission_goes_on_for_what_waits_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 4)
    first = start(tmp_path, "seeds: 3\nslurm: {time: 5}", on_end="true")
    study = first.study
    second = start(tmp_path, "seeds: 7\nslurm: {time: 5}")
    finish(study, fake, 3)
    (name,) = fake.tasks.values()
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "run", lambda *words: asked.append(words) or "")
    monkeypatch.setattr(notice, "FEED", ("true",))
    monkeypatch.setattr(notice, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    assert second.continues
    feed(study)
    notice.follow_up(study.path, first.runs, None)
    jobs = [str(status.job) for status in look(study) if status.state == "queued"]
    assert asked[1][-1] == "Dependency=" + "?".join(f"afterany:{job}" for job in sorted(jobs))
    finish(study, fake, 3)
    feed(study)
    finish(study, fake, 1)
    asked.clear()
    notice.follow_up(study.path, first.runs, None)
    assert asked == []
    fake.room = 3  # its job is in the queue, but will not go on
    assert start(tmp_path, "seeds: 11\nslurm: {time: 5}").continues
    assert len([name for name in fake.tasks.values() if name.endswith("-end")]) == 2


def test_held_runs_are_not_fed_and_the_small_job_awaits_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 3)
    done = start(tmp_path, "seeds: 4\nslurm: {time: 5}")
    study = done.study
    waiting = [status.name for status in look(study) if status.state == "waiting"]
    assert [status.state for status in hold(study, waiting).runs] == ["held", "held"]
    finish(study, fake, 2)
    fake.room = 10
    assert feed(study) == []
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "run", lambda *words: asked.append(words) or "")
    monkeypatch.setattr(notice, "FEED", ("true",))
    monkeypatch.setattr(notice, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    notice.follow_up(study.path, done.runs, "touch told")
    assert asked[1][-1] == "StartTime=now+10minutes"
    release(study, waiting)
    assert [len(fed.started) for fed in feed(study)] == [2]
    cancel(study, patience_s=0)


def test_a_run_that_waits_and_is_dropped_from_the_grid_waits_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(monkeypatch, 3)
    study = start(tmp_path, "seeds: 5\nslurm: {time: 5}").study
    assert states(study) == Counter(queued=2, waiting=3)
    again = start(tmp_path, "seeds: 2\nslurm: {time: 5}")
    assert (len(again.dropped), again.started) == (3, ())
    assert states(study)["waiting"] == 0


def test_what_waits_is_fed_with_the_resources_that_it_was_last_submitted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 2)
    base = plan("seeds: 3\nslurm: {time: 5}")
    runs = [
        replace(run, resources=run.resources.with_value("account", "proj2", "SBATCH_ACCOUNT"))
        for run in base.runs
    ]
    study = submit(replace(base, runs=tuple(runs)), tmp_path, Execution("slurm")).study
    fake.room = 10
    (fed,) = feed(study)  # in a shell without the variable
    assert "--account=proj2" in fake.scripts[str(fed.arrays[0].job)]


def test_runs_that_wait_keep_the_code_that_they_were_submitted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(monkeypatch, 2)
    study = start(tmp_path, "seeds: 3\nslurm: {time: 5}").study
    before = {status.name: codesnapshot.read(study.path / status.name) for status in look(study)}
    present = codefiles.code_files(())
    monkeypatch.setattr(codefiles, "code_files", lambda _: {**present, "mpdit/new.py": b"1"})
    fake.room = 10
    (fed,) = feed(study)
    assert len(fed.started) == 2
    after = {status.name: codesnapshot.read(study.path / status.name) for status in look(study)}
    assert after == before
