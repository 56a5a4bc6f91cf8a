"""A staged study goes on by itself, and goes on after a kill, to the same runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir, RunState
from mpdit.grid.plan import Plan
from mpdit.study.advance import advance, stage_on_disk
from mpdit.study.choosing import select_part
from mpdit.study.retry import STATES
from mpdit.study.staging import read_stage
from mpdit.study.status import survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, submit
from tests.helpers import stand_in
from tests.helpers.launching import LAUNCH
from tests.helpers.plans import BASE, plan
from tests.helpers.pools import PATIENCE_S, POOLS
from tests.helpers.staged import stage, walk

TEXT = """
variants: {a: {}, better: {mp_silu: true}, same: {mp_residual: true}}
tune: {train.learning_rate: [1e-3, 1e-2], seeds: 2}
seeds: {looks: [3, 5]}
"""


def start(made: Plan, results: Path, **options: Any) -> Submission:
    done = submit(made, results, Execution(command=stand_in.COMMAND), **options)
    if done.process is not None:
        POOLS.append(done.process)
    return done


def expected(made: Plan) -> set[str]:
    """The runs that the study needs in the end."""
    return {run.name for run in walk(made, lambda run: stand_in.distance(run.name))[-1].runs}


def done_runs(study: StudyDir) -> set[str]:
    return {status.name for status in survey(StudyDir(study.path)) if status.state == "done"}


@pytest.mark.long
def test_the_local_pool_goes_on_through_all_stages(results: Path) -> None:
    made = plan(TEXT)
    done = start(made, results)
    assert done.stage is not None
    assert done.stage.words == "tuning 1 of 2"
    assert len(done.started) == 6  # nothing of a later stage is listed yet
    assert done.process is not None
    assert done.process.wait(PATIENCE_S) == 0
    assert done_runs(done.study) == expected(made)
    now = stage_on_disk(StudyDir(done.study.path))
    assert now is not None
    assert now.is_over
    again = start(made, results)
    assert not again.started
    assert again.new == again.dropped == ()


def test_a_killed_study_goes_on_where_it_was(results: Path) -> None:
    made = plan(TEXT)
    done = start(made, results)
    assert done.process is not None
    done.process.send_signal(signal.SIGKILL)
    done.process.wait(PATIENCE_S)
    for _ in range(10):  # runs of the killed pool may live on for a moment
        again = start(made, results)
        if again.process is not None:
            again.process.wait(PATIENCE_S)
        if done_runs(done.study) == expected(made):
            break
    assert done_runs(done.study) == expected(made)


def began(study: StudyDir, name: str) -> int:
    return sum("began" in row for row in read_rows(study.path / name / "starts.jsonl"))


SMALL = """
variants: {a: {}, better: {mp_silu: true}}
tune: {train.learning_rate: [1e-3, 1e-2], seeds: 1}
seeds: {looks: [3, 4]}
"""


def test_a_pool_killed_whenever_runs_end_comes_to_the_same_runs(results: Path) -> None:
    made = plan(SMALL)
    wanted = expected(made)
    study = start(made, results).study
    end = time.monotonic() + PATIENCE_S
    # at the end of the first stage, when the next is listed or not yet; and in the next
    for number in (4, 6):
        while len(done_runs(study)) < number and time.monotonic() < end:
            time.sleep(0.01)
        POOLS[-1].send_signal(signal.SIGKILL)
        POOLS[-1].wait(PATIENCE_S)
        start(made, results)
    # runs of a killed pool may live on for a moment, and hold up a stage
    while done_runs(study) != wanted and time.monotonic() < end:
        again = start(made, results)
        if again.process is not None:
            again.process.wait(PATIENCE_S)
        time.sleep(0.1)
    assert done_runs(study) == wanted
    now = stage_on_disk(StudyDir(study.path))
    assert now is not None
    assert now.is_over


def test_whoever_submits_meanwhile_the_same_runs_begin_once(results: Path) -> None:
    made = plan(SMALL)
    wanted = expected(made)
    study = start(made, results).study
    errors: list[BaseException] = []

    def submit_again() -> None:
        try:
            end = time.monotonic() + PATIENCE_S
            while done_runs(study) != wanted and time.monotonic() < end:
                start(made, results)  # beside the pool that goes on by itself, and each other
                time.sleep(0.05)
        except BaseException as error:
            errors.append(error)

    submitters = [threading.Thread(target=submit_again) for _ in range(2)]
    for submitter in submitters:
        submitter.start()
    for submitter in submitters:
        submitter.join()
    assert not errors
    assert done_runs(study) == wanted
    assert {name: began(study, name) for name in wanted} == dict.fromkeys(wanted, 1)
    assert {entry["name"] for entry in StudyDir(study.path).entries} == wanted


@pytest.mark.long
def test_launch_waits_for_all_stages_and_says_them(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(BASE + SMALL)
    said = subprocess.run(
        [sys.executable, "-c", LAUNCH, "grid.yaml", "--wait"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert "tuning 1 of 1" in said.stdout
    assert re.search(r"the next stage needs \d+ more run", said.stdout)
    assert "stopped at" not in said.stdout  # what has just been listed has not been stopped
    assert "all comparisons are decided" in said.stdout or "after the last look" in said.stdout
    study = StudyDir(tmp_path / "results" / "s")
    assert done_runs(study) == expected(plan(SMALL))


def finish(study: StudyDir, name: str, **row: Any) -> None:
    value = {"metric": "FD-digits@50", "value": stand_in.distance(name), **row}
    (study.path / name / "evaluation.jsonl").write_text(json.dumps(value) + "\n")


def test_a_diverged_run_is_an_outcome_and_a_crashed_one_holds_the_stage(results: Path) -> None:
    made = plan(TEXT)
    first = stage(made, {})
    study = StudyDir(results / "s")
    for run in first.runs:
        study.run(run.name).write_config(run.config)
        finish(study, run.name)
    study.write_table(first.narrow(made), "grid.yaml", made.runs)
    lost = study.run(first.runs[0].name)
    (lost.path / "evaluation.jsonl").unlink()
    lost.write_state(RunState(step=3, error="RuntimeError: CUDA error"))
    held = read_stage(made, study)
    assert held is not None
    assert [run.name for run in held.pending] == [lost.name]
    lost.write_state(RunState(step=3, error="the loss is nan at step 3"))
    over = read_stage(made, study)
    assert over is not None
    assert over.words == "tuning 2 of 2"
    # the other point of the variant goes on, and the failed run is not submitted again
    done = start(made, results)
    assert lost.name not in {status.name for status in done.started}
    assert done.process is not None
    done.process.terminate()


def test_a_value_is_the_mean_over_a_runs_sample_sets(results: Path) -> None:
    made = plan("variants: {a: {}, b: {mp_silu: true}}\nseeds: {looks: [3]}\n")
    study = StudyDir(results / "s")
    for run in made.runs:
        study.run(run.name).write_config(run.config)
        rows = [
            {"metric": "FD-digits@50", "value": 10.0 + 3 * run.seed, "count": 50},
            {"metric": "FD-digits@50", "value": 30.0, "count": 50, "role": "repeat"},
            {"metric": "FD-digits@50", "value": 90.0, "count": 50, "role": "sweep"},
            {"metric": "FD-digits@10", "value": 90.0, "count": 10, "role": "repeat"},
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (study.path / run.name / "evaluation.jsonl").write_text(text)
    found = read_stage(made, study)
    assert found is not None
    assert found.family is not None
    assert found.family.decisions["b", "a"].effect == pytest.approx(1)
    run = study.run(made.runs[0].name)
    (run.path / "evaluation.jsonl").write_text('{"metric": "FD-digits@50", "value": 21}\n')
    changed = read_stage(made, study)
    assert changed is not None
    assert changed.family is not None
    assert changed.family.decisions["b", "a"].effect == pytest.approx((20 / 21) ** (1 / 3))


def test_what_results_have_made_unnecessary_is_not_missing(results: Path) -> None:
    made = plan(TEXT)
    study = StudyDir(results / "s")
    first = stage(made, {})
    extra = next(run for run in made.runs if run.seed == 4)
    for run in (*first.runs, extra):
        study.run(run.name).write_config(run.config)
    study.write_table(first.narrow(made), "grid.yaml", made.runs)
    words = {status.name: status.word for status in survey(StudyDir(study.path))}
    assert words.pop(extra.name) == "not needed"
    assert set(words.values()) == {"planned"}


def test_a_cancelled_run_is_not_started_again_by_a_stage(results: Path) -> None:
    made = plan(TEXT)
    first = start(made, results)
    assert first.process is not None
    first.process.terminate()
    first.process.wait(PATIENCE_S)
    again = advance(StudyDir(first.study.path), Execution(command=stand_in.COMMAND))
    assert again is not None
    assert again.process is None or not again.started


def test_the_folder_of_a_study_without_stages_has_none(results: Path) -> None:
    made = plan("seeds: 1\n")
    done = start(made, results)
    assert done.process is not None
    assert done.process.wait(PATIENCE_S) == 0
    assert done.stage is None
    assert stage_on_disk(StudyDir(done.study.path)) is None
    assert RunDir(done.study.path / made.runs[0].name).is_done()


@pytest.mark.long
def test_a_retry_goes_on_with_the_stages_that_its_run_held_up(results: Path) -> None:
    made = plan(TEXT.replace("a: {}", "raises: {}"))
    done = start(made, results)
    assert done.process is not None
    assert done.process.wait(PATIENCE_S) == 0
    held = stage_on_disk(StudyDir(done.study.path))
    assert held is not None
    assert {run.variant for run in held.pending} == {"raises"}
    again = start(select_part(done.study, made, ()), results, whole=made, states=STATES)
    assert again.process is not None
    assert again.process.wait(PATIENCE_S) == 0
    assert read_stage(made, StudyDir(done.study.path)).words != held.words  # type: ignore[union-attr]
