"""Studies of the stand-in on a real Slurm: whatever befalls them, every run is done once."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from itertools import accumulate
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.disk.files import read_rows
from mpdit.errors import ConfigError
from mpdit.study.cancel import cancel
from mpdit.study.choosing import select_runs
from mpdit.study.cluster.job import Job
from mpdit.study.retry import STATES, adjust
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, stored_plan, submit
from tests.helpers import ROOT, stand_in
from tests.helpers.slurm.cluster import NODES, Cluster, wait_until
from tests.helpers.slurm.studies import (
    BASE,
    all_running,
    assert_done_once,
    launch,
    look,
    start,
    starts,
    states,
    train,
    wait_for,
    wait_for_end,
)
from tests.helpers.slurm.studies import plan as planned

pytestmark = pytest.mark.usefixtures("cluster")

MEMORY = "memory: 200M"


@pytest.mark.long
def test_a_hundred_runs_are_done_so_many_at_once_while_others_time_out_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "variants: {slow-a: {}, slow-b: {mp_silu: true}}"
    timed = start(f"{text}\nslurm: {{{MEMORY}, time: 1}}", tmp_path / "timed").study
    text = "variants: {stuck: {}}"
    with monkeypatch.context() as patch:  # as in its second allocation: each takes most of a minute
        patch.setattr("mpdit.study.cluster.submitter.Job", partial(Job, stalls=1))
        start(f"{text}\nslurm: {{{MEMORY}, time: 1}}", tmp_path / "results")
    slurm.calls.clear()
    many = start(f"seeds: 100\nslurm: {{{MEMORY}, max_parallel: 8}}", tmp_path / "many")
    assert (len(many.arrays), len(many.arrays[0].tasks)) == (1, 100)
    assert slurm.calls.total() <= 5
    wait_for_end(many.study, 240)
    assert_done_once(many.study, 100)
    assert 1 < most_at_once(many.study) <= 8
    wait_for_end(timed)
    assert_done_once(timed, 2)
    for status in look(timed):
        began = starts(timed.run(status.name))
        assert len(began) > 1
        assert all(int(str(row["step"])) > 10 for row in began[1:])
    assert_goes_on_with_more_time(StudyDir(tmp_path / "results" / "s"))


def assert_goes_on_with_more_time(study: StudyDir) -> None:
    """What has never got anywhere in its time has timed out, and does in twice of it."""
    (status,) = wait_for_end(study)
    assert (status.state, status.cause) == ("failed", "timed out")
    said = launch(study.path.parents[1], "retry", "s", "--time", "x2", "--wait")
    assert "before: 1 timed out" in said
    assert "s: 1 of 1 done after" in said
    assert StudyDir(study.path).entries[0]["submitted"]["time"] == 2
    assert_done_once(study, 1)


def most_at_once(study: StudyDir) -> int:
    moments: list[tuple[float, int]] = []
    for status in look(study):
        began, *_, ended = read_rows(study.path / status.name / "starts.jsonl")
        moments += [(began["began"], 1), (ended["ended"], -1)]
    return max(accumulate(change for _, change in sorted(moments)))


def test_a_limit_holds_over_all_arrays(tmp_path: Path) -> None:
    text = (
        f"variants: {{a: {{}}, b: {{mp_silu: true, slurm: {{time: 9}}}}}}\n"
        f"seeds: 2\nslurm: {{{MEMORY}, time: 10}}"
    )
    how = Execution("slurm", max_parallel=1, command=stand_in.COMMAND)
    submission = submit(planned(text), tmp_path, how)
    assert len(submission.arrays) == 2
    wait_for_end(submission.study)
    assert_done_once(submission.study, 4)
    assert most_at_once(submission.study) == 1


def test_what_is_more_than_one_array_takes_is_submitted_as_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "largest_array", lambda: 3)
    submission = start(f"seeds: 7\nslurm: {{{MEMORY}}}", tmp_path)
    assert [len(array.tasks) for array in submission.arrays] == [3, 3, 1]
    assert len({array.job for array in submission.arrays}) == 3
    slurm.calls.clear()
    look(submission.study)
    assert slurm.calls["squeue"] == 1
    wait_for_end(submission.study)
    assert_done_once(submission.study, 7)


def test_submitting_again_submits_only_what_is_missing(tmp_path: Path) -> None:
    first = start(f"seeds: 2\nslurm: {{{MEMORY}}}", tmp_path)
    again = start(f"seeds: 3\nslurm: {{{MEMORY}}}", tmp_path)
    assert (len(again.started), len(again.left)) == (1, 2)
    assert [name[:8] for name in again.new] == ["base_s2-"]
    wait_for_end(first.study)
    assert_done_once(first.study, 3)
    fewer = start(f"seeds: [0]\nslurm: {{{MEMORY}}}", tmp_path)
    assert fewer.started == ()
    assert [name[:8] for name in fewer.dropped] == ["base_s1-", "base_s2-"]


def test_runs_packed_into_one_job_run_side_by_side_and_one_failing_stops_no_other(
    tmp_path: Path,
) -> None:
    text = (
        "variants: {raises: {}, dies: {mp_silu: true}, steady: {mp_residual: true},"
        " other: {cosine_attention: true}}\n"
        f"slurm: {{{MEMORY}, runs_per_job: 4, cpus: 4, gpus: 2}}"
    )
    submission = start(text, tmp_path)
    assert [len(array.tasks) for array in submission.arrays] == [1]
    wait_for_end(submission.study)
    assert states(submission.study) == {
        "raises": "failed",
        "dies": "failed",
        "steady": "done",
        "other": "done",
    }
    errors = {status.variant: status.error for status in look(submission.study)}
    assert errors["raises"] == "RuntimeError: a first time always fails"
    assert errors["dies"] == "killed by SIGKILL (out of memory?)"
    rows = [starts(submission.study.run(status.name))[0] for status in look(submission.study)]
    assert [row["gpus"] for row in rows] == ["0", "1", "0", "1"]
    assert {row["threads"] for row in rows} == {"1"}
    assert len({row["node"] for row in rows}) == 1


def test_a_notice_comes_when_all_has_ended(tmp_path: Path) -> None:
    text = f"variants: {{raises: {{}}, good: {{mp_silu: true}}}}\nslurm: {{{MEMORY}}}"
    study = start(text, tmp_path, on_end='echo "$MPDIT_SUMMARY" > told').study
    told = study.path / "told"
    wait_until(lambda: told.exists() and bool(told.read_text()))
    assert told.read_text() == "s: 1 of 2 done, 1 failed\n"


def test_a_cluster_whose_nodes_are_down_takes_runs_for_later(
    cluster: Cluster, tmp_path: Path
) -> None:
    for node in NODES:
        cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    study = start(f"slurm: {{{MEMORY}}}", tmp_path).study
    assert states(study) == {"base": "queued"}
    for node in NODES:  # one that has registered again meanwhile is up already
        cluster.succeeds("scontrol", "update", f"NodeName={node}", "State=RESUME")
    wait_for_end(study)
    assert_done_once(study, 1)


def test_half_is_cancelled_by_scancel_and_goes_on_when_submitted(
    cluster: Cluster, tmp_path: Path
) -> None:
    text = (
        "variants: {steady-a: {}, steady-b: {mp_silu: true}, c: {mp_residual: true}}\n"
        f"slurm: {{{MEMORY}, max_parallel: 2}}"
    )
    submission = start(text, tmp_path)
    study = submission.study
    wait_for(study, lambda found: all_running(found[:2]))
    job = submission.arrays[0].job
    cluster.run("scancel", f"{job}_0", f"{job}_2")
    wait_for(study, lambda found: [s.state for s in found] == ["planned", "running", "planned"], 60)
    slurm.calls.clear()
    look(study)
    assert slurm.calls == {"squeue": 1, "sacct": 1}
    again = start(text, tmp_path)
    assert [status.variant for status in again.started] == ["steady-a", "c"]
    wait_for_end(study)
    assert_done_once(study, 3)


@pytest.mark.slow  # in the default run: test_commands' half a study
def test_a_cancelled_study_keeps_its_state_and_goes_on(tmp_path: Path) -> None:
    text = (
        f"variants: {{steady: {{}}, next: {{mp_silu: true}}}}\nslurm: {{{MEMORY}, max_parallel: 1}}"
    )
    study = start(text, tmp_path).study
    wait_for(study, lambda found: all_running(found[:1]))
    done = cancel(study)
    assert (done.asked, done.stopped) == (2, 2)
    assert [status.word for status in look(study)] == ["interrupted", "planned"]
    assert not study.claims()
    again = start(text, tmp_path)
    assert len(again.started) == 2
    wait_for_end(study)
    assert_done_once(study, 2)
    assert int(str(starts(study.run(again.started[0].name))[1]["step"])) > 2


@pytest.mark.long
def test_some_runs_of_jobs_are_cancelled_and_the_others_go_on(tmp_path: Path) -> None:
    alone = "slurm: {runs_per_job: 1}"
    text = (
        "variants: {steady-a: {}, steady-b: {mp_silu: true}, c: {mp_residual: true},"
        f" d: {{cosine_attention: true}}, steady-e: {{model.gate: one_plus, {alone}}},"
        f" steady-f: {{model.gate: one_plus, mp_silu: true, {alone}}}}}\n"
        f"slurm: {{{MEMORY}, runs_per_job: 2, max_parallel: 2}}"
    )
    study = start(text, tmp_path).study
    wait_for(study, lambda found: all_running([*found[:2], *found[4:]]))
    done = cancel(study, only=select_runs(study, ["steady-a", "c", "steady-[ef]"]))
    assert (done.asked, done.stopped) == (4, 4)  # two runs of tasks that go on, and two tasks
    found = [status.word for status in look(study)]
    assert (found[0], *found[4:]) == ("interrupted", "interrupted", "interrupted")
    wait_for_end(study)
    assert [status.word for status in look(study)[1:4]] == ["done", "planned", "done"]
    again = start(text, tmp_path)
    assert [status.variant for status in again.started] == ["steady-a", "c", "steady-e", "steady-f"]
    wait_for_end(study)
    assert_done_once(study, 6)


@pytest.mark.long
def test_a_controller_that_is_away_makes_nothing_dead(cluster: Cluster, tmp_path: Path) -> None:
    text = (
        f"variants: {{slow: {{}}, next: {{mp_silu: true}}}}\nslurm: {{{MEMORY}, max_parallel: 1}}"
    )
    study = start(text, tmp_path).study
    wait_for(study, lambda found: all_running(found[:1]))
    cluster.kill_controller()
    assert states(study) == {"slow": "running", "next": "queued"}
    assert start(text, tmp_path).started == ()
    with pytest.raises(ConfigError, match="does not answer"):
        start(f"seeds: 2\n{text}", tmp_path)
    cluster.start_controller()
    wait_for_end(study)
    assert_done_once(study, 2)


def test_what_ran_out_of_memory_is_told_so_and_has_more_at_the_retry(tmp_path: Path) -> None:
    study = train("slurm: {memory: 60M, time: 10}", tmp_path).study
    (status,) = wait_for_end(study)
    assert (status.state, status.cause) == ("failed", "out of memory")
    more = partial(adjust, study=StudyDir(study.path), time=None, memory="x50")
    submit(stored_plan(study), tmp_path, Execution("slurm"), states=STATES, adjust=more)
    (entry,) = StudyDir(study.path).entries
    assert entry["submitted"]["memory"] == "3000M"
    (status,) = wait_for_end(study)
    assert status.state == "done", status


SUBMIT = f"""\
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.helpers import stand_in
from mpdit import slurm
from mpdit.study.cluster import submitter
from tests.helpers.plans import load_plan
from mpdit.study.submission import Execution, submit
exec(sys.argv[3])
how = Execution("slurm", command=stand_in.COMMAND)
print(len(submit(load_plan(Path(sys.argv[1])), Path(sys.argv[2]), how).started))
"""


def submitter(folder: Path, text: str, crash: str = "") -> subprocess.Popen[str]:
    grid = folder / "grid.yaml"
    grid.write_text(BASE + text)
    command = [sys.executable, "-c", SUBMIT, str(grid), str(folder), crash]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_submitters_at_once_submit_each_run_once(tmp_path: Path) -> None:
    text = f"seeds: 6\nslurm: {{{MEMORY}}}"
    both = [submitter(tmp_path, text) for _ in range(2)]
    assert sorted(process.communicate(timeout=60)[0] for process in both) == ["0\n", "6\n"]
    study = StudyDir(tmp_path / "s")
    wait_for_end(study)
    assert_done_once(study, 6)
    assert all(len(starts(study.run(status.name))) == 1 for status in look(study))


@pytest.mark.parametrize(
    ("crash", "resubmitted"),
    [
        # after the tasks' arguments were put in their place, and before
        (
            "write = submitter.append_row\n"
            "submitter.append_row = lambda f, row: os._exit(9) if 'job' in row else write(f, row)",
            0,
        ),
        ("answer = slurm.submit\nslurm.submit = lambda file: (answer(file), os._exit(9))", 3),
    ],
)
def test_a_crash_between_sbatch_and_the_books_is_found_by_name(
    tmp_path: Path, crash: str, resubmitted: int
) -> None:
    text = f"seeds: 3\nslurm: {{{MEMORY}}}"
    crashed = submitter(tmp_path, text, crash)
    assert crashed.communicate(timeout=60)[0] == ""
    assert crashed.returncode == 9
    study = StudyDir(tmp_path / "s")
    assert set(states(study).values()) == {"queued"}
    again = start(text, tmp_path)
    assert len(again.started) == resubmitted
    wait_for_end(study)
    assert_done_once(study, 3)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("partition: mian", "partition 'mian' does not exist. Did you mean 'main'?"),
        ("memory: 100G", "Requested node configuration is not available"),
        ("gpus: 3", "Requested node configuration is not available"),
        ("constraint: moon", "Invalid feature specification"),
        ("extra: {nonsense: 1}", "nonsense"),
        ("time: 5-00:00:00", "exceed the limit of partition main"),
    ],
)
def test_what_slurm_would_refuse_is_said_before_anything_is_written(
    cluster: Cluster, tmp_path: Path, resources: str, message: str
) -> None:
    text = (
        f"variants: {{a: {{}}, b: {{mp_silu: true, slurm: {{{resources}}}}}}}\nslurm: {{time: 5}}"
    )
    with pytest.raises(ConfigError) as caught:
        start(text, tmp_path)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: not cluster.run("squeue", "-h"))


@pytest.mark.parametrize(
    "name",
    [
        "it's a $HOME",
        *(pytest.param(n, marks=pytest.mark.long) for n in ('#1 ünï & "q"', "a;b `c`")),
    ],
)
def test_runs_below_a_folder_of_any_name_are_done_and_have_their_logs_there(
    tmp_path: Path, name: str
) -> None:
    # the signal ahead of a short limit may come at any time
    told = "kill -USR2 $PPID; sleep 1; kill -0 $PPID && touch told"
    study = start(f"seeds: 2\nslurm: {{{MEMORY}, time: 1}}", tmp_path / name, on_end=told).study
    (claim,) = study.claims()
    wait_for_end(study)
    assert_done_once(study, 2)
    ((task, _), _) = claim.arrays[0].task_ids().items()
    assert "Starting with JobEnvironment" in claim.task_log(task).read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    wait_until((study.path / "told").exists)
