"""How often a screen that is redrawn asks Slurm, by a clock of its own."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.disk.files import append_row
from mpdit.study.cluster import scheduler
from mpdit.study.screens import statustable, watch
from mpdit.study.status import RunStatus
from mpdit.study.studydir import StudyDir
from mpdit.text import PLAIN
from tests.helpers.plans import plan


class Clock:
    """Its time passes only while one sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def strftime(self, _shape: str) -> str:
        return "12:00:00"


def test_a_followed_study_asks_slurm_every_thirty_seconds_and_is_redrawn_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyDir(tmp_path)
    (name,) = study.write_table(plan("slurm: {time: 60}"), "grid.yaml").values()
    arrays = [{"tasks": [[name]]}]
    file, held = study.new_claim("slurm", [name], job_name="s-1", arrays=arrays)
    held.close()
    append_row(file, {"array": 0, "job": "7"})
    clock, asked = Clock(), []

    def queue(_names: object) -> list[slurm.QueuedTask]:
        asked.append(clock.now)
        clock.now += 5  # a slow scheduler
        running = slurm.QueuedTask("7", "s-1-0", "RUNNING", "", "n1", 60)
        return [running] if clock.now < 100 else []

    monkeypatch.setattr(slurm, "queue", queue)
    monkeypatch.setattr(slurm, "accounting", lambda _: None)
    monkeypatch.setattr(scheduler, "time", clock)
    monkeypatch.setattr(watch, "time", clock)
    (status,) = watch.follow(StudyDir(tmp_path), [name], lambda: False, io.StringIO())
    assert status.state == "lost"
    assert len(asked) == 4
    assert all(later - earlier >= 30 for earlier, later in pairwise(asked))
    assert max(clock.slept) <= 2
    assert len(clock.slept) > 100


def status(name: str, step: int, **more: object) -> RunStatus:
    return RunStatus(
        name=name,
        id=name,
        variant=name,
        seed=0,
        state="running",
        stage="train",
        step=step,
        steps=100,
        **more,  # type: ignore[arg-type]
    )


def test_a_study_has_never_less_time_left_than_its_slowest_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    display = watch._Display()
    assert display.left([status("a", 0)]) is None
    clock.sleep(10)
    by_pace = display.left([status("a", 50)])
    assert by_pace is not None
    assert by_pace == pytest.approx(10 / 0.45 - 10)
    assert display.left([status("a", 50, eta=470.0)]) == 470


def test_what_waits_is_tried_soon_after_a_run_has_ended_and_then_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tried = Clock(), []
    monkeypatch.setattr(watch, "time", clock)
    monkeypatch.setattr(watch, "feed", lambda _: tried.append(clock.now) or [])
    feeder = watch._Feeder(StudyDir(tmp_path))
    waits = replace(status("b", 0), state="waiting")
    while clock.now < 1000:
        ended = replace(status("a", 0), state="done" if clock.now > 700 else "running")
        feeder.attend([ended, waits], ended=False)
        clock.sleep(1)
    assert tried[:5] == [0, 5, 15, 35, 75]
    assert [now for now in tried if now > 700][:2] == [701, 711]
    assert len(tried) < 20


def test_a_cancelled_run_is_stopped_where_it_was_or_was_not_started() -> None:
    lines = watch._Lines(io.StringIO())
    lines.show([replace(status("a", 0), state="queued"), status("b", 0), status("c", 7)])
    lines.out = out = io.StringIO()
    ended = {"a": 0, "b": 0, "c": 7}
    lines.show([replace(status(name, step), state="planned") for name, step in ended.items()])
    told = [line.split("  ")[1] for line in out.getvalue().splitlines()]
    assert told == ["a was not started", "b stopped at train 0", "c stopped at train 7"]


def test_many_runs_that_were_not_started_are_one_line() -> None:
    lines = watch._Lines(io.StringIO())
    names = [f"r{number}" for number in range(100)]
    lines.show([replace(status(name, 0), state="queued") for name in names])
    lines.out = out = io.StringIO()
    lines.show([replace(status(name, 0), state="planned") for name in names])
    (line,) = out.getvalue().splitlines()
    assert "100 runs" in line


def test_a_study_that_is_done_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    display = watch._Display()
    display.left([status("a", 0)])
    clock.sleep(10)
    assert display.left([replace(status("a", 100), state="done")]) is None


def test_the_time_of_a_resumed_run_is_told_with_its_interruptions() -> None:
    done = replace(status("a", 100, seconds=11.0), state="done")
    told = [statustable.finished(replace(done, interruptions=n)) for n in (0, 1, 2)]
    assert told[0] == "finished in 11 s"
    assert [text.removeprefix(told[0]) for text in told[1:]] == [
        " after 1 interruption",
        " after 2 interruptions",
    ]


def test_the_end_of_an_earlier_failure_is_kept_and_its_folders_are_not() -> None:
    error = (
        "its job ended before the run started: /shared/people/me/results/s/.jobs/1/slurm_script: "
        "line 9: module: command not found (FAILED, exit 127)"
    )
    attempts = ({"error": error, "time": None, "memory": None},)
    (_, line) = statustable.status_lines([status("a", 0, attempts=attempts)], PLAIN)
    assert "line 9: module: command not found" in line
    assert "/shared" not in line
