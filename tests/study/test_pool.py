"""Submission and the local pool: every run is brought to its end once, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import ConfigError
from mpdit.grid.plan import Plan
from mpdit.study import pool, poolprocess, runprocess
from mpdit.study.cancel import Cancelled, cancel
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, submit
from tests.helpers import ROOT, stand_in
from tests.helpers.plans import BASE, plan
from tests.helpers.pools import PATIENCE_S, POOLS


def start(made: Plan, results: Path, **options: Any) -> Submission:
    how = Execution(
        max_parallel=options.pop("max_parallel", None),
        on_end=options.pop("on_end", None),
        command=options.pop("command", stand_in.COMMAND),
    )
    submission = submit(made, results, how, **options)
    if submission.process is not None:
        POOLS.append(submission.process)
    return submission


def finish(submission: Submission) -> list[RunStatus]:
    assert submission.process is not None
    assert submission.process.wait(PATIENCE_S) == 0
    return look(submission.study)


def look(study: StudyDir) -> list[RunStatus]:
    return survey(StudyDir(study.path))


def states(statuses: list[RunStatus]) -> dict[str, str]:
    return {status.variant: status.state for status in statuses}


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def starts(study: StudyDir, name: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(study.path / name / "starts.jsonl") if "began" in row]


def stepping(study: StudyDir) -> bool:
    return any(status.state == "running" and status.step > 2 for status in look(study))


def test_all_runs_are_done_no_more_than_so_many_at_once(results: Path) -> None:
    submission = start(plan("seeds: 4"), results, max_parallel=2)
    statuses = finish(submission)
    assert [status.state for status in statuses] == ["done"] * 4
    moments: list[tuple[float, int]] = []
    for status in statuses:
        rows = read_rows(submission.study.path / status.name / "starts.jsonl")
        moments += [(rows[0]["began"], 1), (rows[1]["ended"], -1)]
        assert rows[0]["threads"] == str(max(1, runprocess.cores() // 2))
    at_once, most = 0, 0
    for _, change in sorted(moments):
        at_once += change
        most = max(most, at_once)
    assert most <= 2
    assert list(submission.study.jobs.iterdir()) == []


def test_what_is_done_is_not_done_again(results: Path) -> None:
    finish(start(plan("seeds: 2"), results))
    again = start(plan("seeds: 3"), results)
    assert (len(again.started), len(again.left)) == (1, 2)
    statuses = finish(again)
    assert all(len(starts(again.study, status.name)) == 1 for status in statuses)
    assert start(plan("seeds: 3"), results).started == ()


def test_a_claimed_run_is_queued_and_left_alone(results: Path) -> None:
    first = start(plan("variants: {slow: {}, next: {mp_silu: true}}"), results, max_parallel=1)
    wait_until(lambda: stepping(first.study))
    assert states(look(first.study)) == {"slow": "running", "next": "queued"}
    second = start(plan("variants: {slow: {}, next: {mp_silu: true}}"), results)
    assert second.started == ()


def test_two_submitters_at_once_submit_each_run_once(results: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(BASE + "seeds: 6")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from tests.helpers import stand_in\n"
        "from tests.helpers.plans import load_plan\n"
        "from mpdit.study.submission import Execution, submit\n"
        "how = Execution(command=stand_in.COMMAND)\n"
        "done = submit(load_plan(Path(sys.argv[2])), Path(sys.argv[3]), how)\n"
        "print(len(done.started))\n"
    )
    command = [sys.executable, "-c", script, str(ROOT), str(tmp_path / "grid.yaml"), str(results)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    submitted = sorted(int(process.communicate(timeout=PATIENCE_S)[0]) for process in both)
    assert submitted == [0, 6]
    study = StudyDir(results / "s")
    wait_until(lambda: set(states(look(study)).values()) == {"done"} and not study.claims())
    assert all(len(starts(study, status.name)) == 1 for status in look(study))


def test_a_run_that_fails_says_why_and_does_not_stop_the_others(results: Path) -> None:
    text = "variants: {raises: {}, dies: {mp_silu: true}, good: {mp_residual: true}}"
    submission = start(plan(text), results)
    statuses = finish(submission)
    assert states(statuses) == {"raises": "failed", "dies": "failed", "good": "done"}
    errors = {status.variant: status.error for status in statuses}
    assert errors["raises"] == "RuntimeError: a first time always fails"
    assert errors["dies"] == "killed by SIGKILL (out of memory?)"
    again = start(plan(text), results, states=("failed",))
    assert [status.variant for status in again.started] == ["raises", "dies"]
    assert states(finish(again)) == {"raises": "done", "dies": "failed", "good": "done"}


def test_a_command_that_cannot_even_begin_is_a_failure_with_its_last_words(results: Path) -> None:
    command = (sys.executable, "-c", "import nonexistent_module")
    statuses = finish(start(plan(""), results, command=command))
    assert states(statuses) == {"base": "failed"}
    assert statuses[0].error == "ModuleNotFoundError: No module named 'nonexistent_module'"


def test_cancelled_runs_keep_their_state_and_go_on(results: Path) -> None:
    submission = start(plan("variants: {slow: {}, next: {mp_silu: true}}"), results, max_parallel=1)
    study = submission.study
    wait_until(lambda: stepping(study))
    assert cancel(study) == Cancelled(1, 1)
    slow, waiting = look(study)
    assert (slow.state, slow.stopped, waiting.state) == ("planned", "SIGTERM", "planned")
    assert slow.step > 2
    again = start(plan("variants: {slow: {}, next: {mp_silu: true}}"), results)
    assert len(again.started) == 2
    wait_until(lambda: len(starts(study, slow.name)) == 2)
    assert starts(study, slow.name)[1]["step"] == slow.step


def test_killed_with_its_pool_a_run_is_lost_and_goes_on_when_submitted(results: Path) -> None:
    submission = start(plan("variants: {slow: {}}"), results)
    study = submission.study
    wait_until(lambda: stepping(study))
    (running,) = look(study)
    state = study.run(running.name).state()
    assert state is not None
    assert submission.process is not None
    submission.process.kill()
    submission.process.wait()
    assert states(look(study)) == {"slow": "running"}, "the orphan is alive"
    assert start(plan("variants: {slow: {}}"), results).started == ()
    os.kill(state.pid, signal.SIGKILL)
    wait_until(lambda: states(look(study)) == {"slow": "lost"})
    again = start(plan("variants: {slow: {}}"), results, states=("failed", "lost"))
    assert len(again.started) == 1
    wait_until(lambda: len(starts(study, running.name)) == 2)
    assert len(list(study.jobs.glob("*.jsonl"))) == 1, "the dead pool's claim is forgotten"


def test_a_run_elsewhere_lives_while_its_heart_beats(results: Path) -> None:
    made = plan("")
    finish(start(made, results, command=(sys.executable, "-c", "pass")))
    study = StudyDir(results / "s")
    run = study.run(made.runs[0].name)
    state = RunState(step=3, steps=10, host="elsewhere", heartbeat=time.time())
    run.write_state(state)
    assert states(look(study)) == {"base": "running"}
    assert start(made, results).started == ()
    run.write_state(RunState(step=3, steps=10, host="elsewhere", heartbeat=time.time() - 1000))
    assert states(look(study)) == {"base": "lost"}


def test_every_gpu_gets_its_own_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert pool.default_parallel() == 2
    submission = start(plan("variants: {slow-a: {}, slow-b: {mp_silu: true}}"), results)
    study = submission.study
    wait_until(lambda: all(starts(study, status.name) for status in look(study)))
    given = {starts(study, status.name)[0]["gpus"] for status in look(study)}
    assert given == {"3", "GPU-5"}


def test_no_gpu_is_used_where_none_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,-1,2")
    assert runprocess.find_gpus() == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert runprocess.find_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert runprocess.find_gpus() == []
    assert pool.default_parallel() == runprocess.cores()


def test_how_a_run_is_executed_can_be_changed_until_it_is_done(results: Path) -> None:
    submission = start(plan("variants: {slow: {}}"), results)
    wait_until(lambda: stepping(submission.study))
    cancel(submission.study)
    again = start(plan("variants: {slow: {}}", "train.checkpoint_every=7"), results)
    (status,) = again.started
    assert again.study.run(status.name).config().train.checkpoint_every == 7


def test_a_changed_grid_keeps_folders_and_lists_what_it_no_longer_has(results: Path) -> None:
    finish(start(plan("variants: {A: {}, B: {mp_silu: true}}"), results))
    submission = start(plan("variants: {renamed: {mp_silu: true}}"), results)
    assert submission.started == ()
    table = json.loads((submission.study.path / "study.json").read_text())
    rows = [(row["variant"], row["name"][:4], row["in_grid"]) for row in table["runs"]]
    assert rows == [("renamed", "B_s0", True), ("A", "A_s0", False)]
    assert [status.in_grid for status in look(submission.study)] == [True, False]


def test_a_part_of_a_study_leaves_the_rest_planned(results: Path) -> None:
    whole = plan("variants: {A: {}, B: {mp_silu: true}}")
    submission = start(whole.only("B"), results, whole=whole)
    assert states(finish(submission)) == {"A": "planned", "B": "done"}
    assert not (submission.study.path / whole.runs[0].name).exists()


def test_nothing_is_written_where_it_could_not_run(results: Path, tmp_path: Path) -> None:
    missing = plan("", "data=fashion-mnist", f"data.path={tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match="fashion-mnist"):
        start(missing, results)
    assert not results.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        start(plan(""), tmp_path / "file")


def test_status_of_a_run_never_calls_a_finishing_one_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "r_s0-00000000")
    run.path.mkdir()
    run.write_state(RunState(stage="done", step=10, steps=10))
    (run.path / "evaluation.jsonl").write_text('{"value": 1}\n')
    (tmp_path / "study.json").write_text(
        json.dumps({"runs": [{"name": run.name, "id": "00000000", "variant": "r", "steps": 10}]})
    )
    # the look at the folder was a moment before its last file was there
    monkeypatch.setattr(os, "listdir", lambda _: ["state.json", "lock"])
    assert states(survey(StudyDir(tmp_path))) == {"r": "done"}


def test_a_deleted_run_does_not_stop_the_others(results: Path) -> None:
    text = "variants: {slow: {}, gone: {mp_silu: true}, good: {mp_residual: true}}"
    submission = start(plan(text), results, max_parallel=1)
    study = submission.study
    wait_until(lambda: stepping(study))
    slow, gone, _ = look(study)
    said = study.run(slow.name).state()
    assert said is not None
    shutil.rmtree(study.path / gone.name)
    (study.path / slow.name).rename(results / "elsewhere")
    os.kill(said.pid, signal.SIGKILL)
    assert states(finish(submission)) == {"slow": "planned", "gone": "planned", "good": "done"}
    assert list(study.jobs.iterdir()) == []


def test_a_deleted_study_is_the_end_of_its_pool(results: Path) -> None:
    submission = start(plan("variants: {slow: {}, next: {mp_silu: true}}"), results, max_parallel=1)
    study = submission.study
    wait_until(lambda: stepping(study))
    said = study.run(look(study)[0].name).state()
    assert said is not None
    study.path.rename(results / "moved")
    os.kill(said.pid, signal.SIGKILL)
    assert submission.process is not None
    assert submission.process.wait(PATIENCE_S) == 0


def test_no_room_for_a_word_does_not_stop_the_pool(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = RunDir(results / "r_s0-00000000")
    run.path.mkdir(parents=True)
    monkeypatch.setattr(poolprocess, "append_row", full)
    monkeypatch.setattr(RunDir, "write_state", full)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own stay
    poolprocess.Pool(results / "claim.jsonl", [run], [sys.executable, "-c", "exit(3)"], 1).work()


def test_a_pool_that_has_just_started_can_be_cancelled(results: Path) -> None:
    submission = start(plan("variants: {slow: {}}"), results)
    assert submission.process is not None
    assert [claim.pid for claim in submission.study.claims()] == [submission.process.pid]
    assert cancel(submission.study) == Cancelled(1, 1)
    assert states(look(submission.study)) == {"slow": "planned"}


def test_a_run_without_a_pool_is_cancelled_too(results: Path) -> None:
    submission = start(plan("variants: {slow: {}}"), results)
    study = submission.study
    wait_until(lambda: stepping(study))
    assert submission.process is not None
    submission.process.kill()
    submission.process.wait()
    assert cancel(study) == Cancelled(1, 1)
    (slow,) = look(study)
    assert (slow.state, slow.stopped) == ("planned", "SIGTERM")
    assert cancel(study) == Cancelled(0, 0)


def test_anothers_pool_is_named_and_not_a_traceback(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_pid: int, _number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    submission = start(plan("variants: {slow: {}}"), results)
    assert submission.process is not None
    owner = results.owner()
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", forbidden)
        with pytest.raises(ConfigError, match=f"{submission.process.pid} of {owner} on "):
            cancel(submission.study, 0)


def test_a_dead_pools_claim_and_its_last_words_go_at_the_next_submission(results: Path) -> None:
    study = start(plan("variants: {slow: {}}"), results).study
    (study.jobs / "20000101-000000-1.jsonl").write_text('{"runs": []}\n')
    (study.jobs / "20000101-000000-1.log").write_text("a traceback")
    (study.jobs / "20000101-000000-2.log").write_text("")
    start(plan("variants: {slow: {}, new: {mp_silu: true}}"), results)
    assert not list(study.jobs.glob("2000*"))
    assert len(list(study.jobs.glob("*.jsonl"))) == len(list(study.jobs.glob("*.log"))) > 0


def test_a_command_of_the_users_is_told_how_it_ended(results: Path) -> None:
    text = "variants: {raises: {}, good: {mp_silu: true}}"
    finish(start(plan(text), results, on_end='echo "$MPDIT_SUMMARY in $MPDIT_STUDY" > told'))
    said = (results / "s" / "told").read_text()
    assert said == f"s: 1 of 2 done, 1 failed in {results / 's'}\n"


@pytest.mark.parametrize("in_the_way", [("log.txt",), ("log.txt", "state.json")])
def test_a_run_that_cannot_start_has_a_reason(results: Path, in_the_way: tuple[str, ...]) -> None:
    """As without room for its log, nor perhaps for the reason in its own folder."""
    made = plan("variants: {closed: {}, good: {mp_silu: true}}")
    folder = results / "s" / made.runs[0].name
    for name in in_the_way:
        (folder / name).mkdir(parents=True)
    closed, good = finish(start(made, results))
    assert (closed.state, good.state) == ("failed", "done")
    assert closed.error is not None
    assert closed.error.endswith(f"{folder / 'log.txt'}: Is a directory")
    for name in in_the_way:
        shutil.rmtree(folder / name, ignore_errors=True)
    assert {s.state for s in finish(start(made, results))} == {"done"}
