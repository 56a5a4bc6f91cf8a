"""Runs of one local pool are stopped, held and released without the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpdit.disk.holds import read_held
from mpdit.study.cancel import Cancelled, cancel
from mpdit.study.choosing import outside as runs_outside
from mpdit.study.choosing import select_runs
from mpdit.study.hold import hold, release
from mpdit.study.screens.dropped import active_lines, still_active
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, submit
from mpdit.text import PLAIN
from tests.helpers import stand_in
from tests.helpers.plans import plan

THREE = plan("variants: {slow: {}, b: {mp_silu: true}, c: {mp_residual: true}}")
"""The first takes a while, and the others wait for it in a pool of one run at once."""
SLOW, B, C = (run.name for run in THREE.runs)
PATIENCE_S = 60
HOW = Execution(max_parallel=1, command=stand_in.COMMAND)


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Submission]:
    submission = submit(THREE, tmp_path, HOW)
    wait_until(lambda: look(submission.study)[0].step > 2)
    yield submission
    cancel(StudyDir(submission.study.path))
    assert submission.process is not None
    submission.process.wait(PATIENCE_S)


def look(study: StudyDir) -> list[RunStatus]:
    return survey(StudyDir(study.path))


def words(study: StudyDir) -> list[str]:
    return [status.word for status in look(study)]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_run_of_a_pool_is_cancelled_and_the_others_go_on(begun: Submission) -> None:
    study = begun.study
    assert cancel(study, only=[B]) == Cancelled(1, 1)
    assert words(study) == ["running", "planned", "queued"]
    assert cancel(study, only=[B]) == Cancelled(0, 0)
    assert cancel(study, only=[SLOW]) == Cancelled(1, 1)
    wait_until(lambda: words(study) == ["interrupted", "planned", "done"])
    assert look(study)[0].stopped == "SIGTERM"
    assert begun.process is not None
    assert begun.process.wait(PATIENCE_S) == 0
    assert not study.claims()


def test_a_run_is_chosen_by_its_name_without_its_id(tmp_path: Path) -> None:
    study = StudyDir(tmp_path)
    study.write_table(THREE, "grid.yaml")
    assert [select_runs(study, [name]) for name in ("b", "b_s0", B)] == [[B]] * 3


def test_held_runs_do_not_start_before_they_are_released(begun: Submission) -> None:
    study = begun.study
    assert [status.name for status in hold(study, [SLOW, B, C]).runs] == [B, C]
    assert words(study) == ["running", "held", "held"]
    assert submit(THREE, study.path.parent, HOW).started == ()
    released = release(study, [SLOW, C])
    assert [(status.name, status.state) for status in released.runs] == [(C, "queued")]
    cancel(study, only=[SLOW])
    wait_until(lambda: words(study) == ["interrupted", "held", "done"])
    assert begun.is_working(), "it waits for the held one"
    release(study, [B])
    wait_until(lambda: words(study)[1] == "done")


def test_a_hold_outlives_the_pool_and_is_not_undone_by_submitting(begun: Submission) -> None:
    study = begun.study
    hold(study, [B, C])
    cancel(study)
    assert words(study) == ["interrupted", "held", "held"]
    only_b = submit(THREE.only("b"), study.path.parent, HOW, whole=THREE)
    assert (only_b.started, [status.state for status in only_b.left]) == ((), ["held"])
    assert [status.state for status in release(study, [B, C]).runs] == ["planned", "planned"]
    assert read_held(study.path) == frozenset()


def test_runs_outside_the_grid_are_cancelled_by_the_shortest_names(begun: Submission) -> None:
    study = begun.study
    made = plan("variants: {b: {mp_silu: true}}\nseeds: [1]")
    outside = runs_outside(study, made)
    assert outside == [SLOW, B, C]
    active = still_active(study, outside)
    first, command = active_lines(study, active, outside, "cancel s", PLAIN)
    assert "1 running, 2 queued" in first
    assert command.split() == ["cancel", "s", "--only", "slow", "--only", "b", "--only", "c"]
    later = submit(made, study.path.parent, HOW)
    study = StudyDir(study.path)
    hold(study, [C])
    outside = runs_outside(study, made)
    active = still_active(study, outside)
    first, command = active_lines(study, active, outside, "cancel s", PLAIN)
    assert "1 running, 1 queued, 1 held" in first
    assert command.split() == ["cancel", "s", "--only", "slow", "--only", B, "--only", "c"]
    cancel(study, only=select_runs(study, ["slow", B, "c"]))
    assert still_active(study, outside) == [status for status in look(study) if status.name == C]
    assert later.process is not None
    later.process.wait(PATIENCE_S)
