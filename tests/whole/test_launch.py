"""launch.py as a person meets it: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.launching import LAUNCH

GRID = """\
study: s
description: a study
base:
  data: digits
  model: {depth: 4, width: 64, heads: 4, patch_size: 2}
  train: {steps: 10}
variants: {A: {}, B: {mp_silu: true}}
seeds: 2
"""
SLOW = GRID.replace("A: {}, B", "slow: {}, B")
PATIENCE_S = 60


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "slow.yaml").write_text(SLOW)
    yield tmp_path
    if (tmp_path / "results" / "s").is_dir():
        launch(tmp_path, "cancel", "s")


def launch(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LAUNCH, *arguments],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def begin(here: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *arguments],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def states(here: Path) -> list[str]:
    done = launch(here, "status", "s", "--json")
    return [run["state"] for run in json.loads(done.stdout)] if done.returncode == 0 else []


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def refused(here: Path, *arguments: str) -> str:
    """The one line of an error; nothing may have been written."""
    before = sorted(here.rglob("*"))
    done = launch(here, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert sorted(here.rglob("*")) == before
    return line


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "experiments/fashion.yaml"], ["status", "STUDY"]]
)
def test_help_plans_and_states_do_not_wait_for_torch(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"runs": []}')
    words = [str(tmp_path) if word == "STUDY" else word for word in words]
    code = (
        "import sys, launch\n"
        f"try: launch.main({words!r})\n"
        "except SystemExit as end:\n"
        "    print(end.code, *{'torch', 'rich', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"


def test_plan_lists_the_runs_with_what_differs_and_writes_nothing(here: Path) -> None:
    done = launch(here, "plan", "grid.yaml")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "s  a study"
    assert lines[1] == "4 runs: 2 variants, 2 seeds; 40 training steps in all"
    assert lines[3].split() == ["run", "flags", "parameters"]
    assert lines[4].split()[1:] == ["none", "312,832"]
    assert lines[6].split()[1:] == ["silu", "312,832"]
    assert "\033" not in done.stdout
    assert sorted(file.name for file in here.iterdir()) == ["grid.yaml", "slow.yaml"]


@pytest.mark.parametrize(
    ("study", "run", "expected"),
    [
        ("modulation", "adaln_s0", ["32,794,443"]),
        ("modulation", "rotation-scale_s0", ["31,024,971", "−5.40", "%"]),
        ("modulation", "rotation-scale-everywhere_s0", ["30,951,243", "−5.62", "%"]),
        ("ladder", "A-none_DiT-XS-2_s0", ["7,608,832"]),
        ("ladder", "E-all_DiT-XS-2_s0", ["7,864,840", "+3.36", "%"]),
        ("ladder", "A-none_DiT-S-4_s0", ["32,898,816"]),
        ("ladder", "E-all_DiT-S-4_s0", ["33,282,830", "+1.17", "%"]),
    ],
)
def test_the_papers_tables_are_planned_with_the_published_parameter_counts(
    here: Path, study: str, run: str, expected: list[str]
) -> None:
    grid = ROOT / "experiments" / f"{study}.yaml"
    lines = launch(here, "plan", str(grid)).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{run}-")]
    assert line.split()[-len(expected) :] == expected


def test_a_plan_in_a_pipe_is_never_cut(here: Path) -> None:
    name = "x" * 80
    grid = GRID.replace("A:", f"{name}:")
    (here / "long.yaml").write_text(grid)
    assert name in launch(here, "plan", "long.yaml").stdout


@pytest.mark.parametrize("place", ["~nosuchuser/x", "~/x", "nowhere"])
def test_plan_tells_that_the_data_is_not_here(here: Path, place: str) -> None:
    done = launch(here, "plan", "grid.yaml", "--set", f"data.path={place}")
    absolute = (here / os.path.expanduser(place)).absolute()  # noqa: PTH111
    assert done.returncode == 0
    assert f"there is no {absolute} here (data.path)" in done.stdout


def test_plan_tells_that_the_extractors_weights_are_not_here(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(here / "none"))
    done = launch(here, "plan", "grid.yaml", "--set", "evaluate.extractor=inception")
    assert done.returncode == 0
    assert str(here / "none") in done.stdout
    assert str(here / "none") not in launch(here, "plan", "grid.yaml").stdout


def test_plan_as_json_is_a_list_of_whole_runs(here: Path) -> None:
    runs = json.loads(launch(here, "plan", "grid.yaml", "--json").stdout)
    assert [run["seed"] for run in runs] == [0, 1, 0, 1]
    first = runs[0]
    assert first["name"] == f"A_s0-{first['id']}"
    assert first["variant"] == "A"
    assert first["parameters"] == sum(first["parts"].values()) == 312_832
    assert first["config"]["model"]["mp_silu"] is False


def test_plan_lists_what_was_left_out_and_what_was_merged(here: Path) -> None:
    (here / "grid.yaml").write_text(
        GRID + "leave_one_out: [mp_silu]\ngrid: {model.conditioning: [adaln, none]}\n"
        "exclude: [{variant: A, model.conditioning: none, reason: nothing to see}]\n"
    )
    text = launch(here, "plan", "grid.yaml").stdout
    assert "2 runs with {variant: A, model.conditioning: none}: nothing to see" in text
    assert "full_adaln is the same as B_adaln (2 runs)" in text


def test_a_waited_for_study_is_run_to_its_end_and_then_has_nothing_to_do(here: Path) -> None:
    done = launch(here, "grid.yaml", "--wait", "--max-parallel", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s: 4 runs submitted, 2 at a time on this machine" in done.stdout
    assert len(re.findall(r" finished in \d s", done.stdout)) == 4
    assert "s: 4 of 4 done after" in done.stdout
    assert states(here) == ["done"] * 4
    again = launch(here, "submit", "grid.yaml", "--wait")
    assert again.returncode == 0
    assert "nothing to submit; left alone: 4 done" in again.stdout


def test_a_failed_run_is_named_with_its_log_and_can_be_tried_again(here: Path) -> None:
    (here / "grid.yaml").write_text(GRID.replace("A:", "raises:"))
    done = launch(here, "grid.yaml", "--wait", "--only", "*_s0-*")
    assert done.returncode == 1
    assert "RuntimeError: a first time always fails" in done.stdout
    (log,) = (here / "results/s").glob("raises_s0-*/log.txt")
    assert str(log) in done.stdout
    status = launch(here, "status", "s").stdout
    assert "1 of 4 done, 1 failed, 2 planned" in status
    assert "RuntimeError" in launch(here, "logs", log.parent.name).stdout
    again = launch(here, "retry", "s", "--wait")
    assert again.returncode == 0, again.stdout
    assert "s: 1 run submitted" in again.stdout
    assert sorted(states(here)) == ["done", "done", "planned", "planned"]


IDEA = """\
from mpdit.catalogue import flag

@flag("mine", code="x", does="")
def change(model):
    pass
"""


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param([], marks=pytest.mark.long),
        ["idea.py"],
        pytest.param(["grid.yaml"], marks=pytest.mark.long),
    ],
)
def test_a_retry_of_older_files_than_the_users_names_them_and_the_command_that_uses_them(
    here: Path, edited: list[str]
) -> None:
    (here / "idea.py").write_text(IDEA)
    grid = GRID.replace("{A: {}, B: {mp_silu: true}}", "{raises: {mine: true}}")
    (here / "grid.yaml").write_text(f"extensions: [idea.py]\n{grid}")
    sets = ["--set", "train.steps=9", "--results", "other"]
    assert launch(here, "grid.yaml", "--wait", *sets).returncode == 1
    for name in edited:
        (here / name).write_text((here / name).read_text() + "# mended\n")
    retried = launch(here, "retry", "other/s", "--wait").stdout.splitlines()
    told = [line for line in retried if "changed since" in line]
    assert [name for name in ("idea.py", "grid.yaml") if f" {name}." in "".join(told)] == edited
    assert all(line.endswith(f"submit grid.yaml {' '.join(sets)}") for line in told)


def test_more_memory_at_a_retry_is_for_what_failed_and_asks_nothing_of_the_others(
    here: Path,
) -> None:
    failing = "{raises: {mp_residual: true, slurm: {memory: 1G}}, B: {mp_silu: true}}"
    (here / "grid.yaml").write_text(GRID.replace("{A: {}, B: {mp_silu: true}}", failing))
    local = ("--cluster", "local", "--wait")
    assert launch(here, "grid.yaml", *local).returncode == 1
    again = launch(here, "retry", "s", "--memory", "x2", "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    table = json.loads((here / "results" / "s" / "study.json").read_text())
    had = {run["variant"]: run["submitted"]["memory"] for run in table["runs"]}
    assert had == {"raises": "2G", "B": None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_are_resumable_and_the_command_that_goes_on_is_said(
    here: Path, number: signal.Signals
) -> None:
    process = begin(here, "slow.yaml", "--wait", "--max-parallel", "1")
    wait_until(lambda: states(here)[:1] == ["running"])
    os.kill(process.pid, number)
    text, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "the runs keep their state" in text
    assert "s: 0 of 4 done, 1 interrupted, 3 planned" in text
    assert text.splitlines()[-1].endswith("slow.yaml --wait --max-parallel 1")
    (begun,) = (
        run for run in json.loads(launch(here, "status", "s", "--json").stdout) if run["step"]
    )
    assert (begun["state"], begun["stopped"], begun["stage"]) == ("planned", "SIGTERM", "train")


def test_a_study_left_alone_goes_on_and_can_be_cancelled(here: Path) -> None:
    done = launch(here, "slow.yaml", "--max-parallel", "1")
    assert done.returncode == 0
    assert "status s --watch" in done.stdout
    assert "cancel s" in done.stdout
    wait_until(lambda: states(here)[:1] == ["running"])
    assert states(here)[1:] == ["queued"] * 3
    assert "left alone" in launch(here, "slow.yaml").stdout
    assert "stopped; 0 of 4 done, 1 interrupted, 3 planned" in launch(here, "cancel", "s").stdout
    assert "no run of s is running" in launch(here, "cancel", "s").stdout
    retried = launch(here, "retry", "s").stdout
    assert "nothing to submit; left alone: 1 interrupted, 3 planned" in retried
    assert retried.splitlines()[-1].endswith("submit slow.yaml")


def test_a_part_of_a_study_is_shown_held_released_and_cancelled(here: Path) -> None:
    launch(here, "slow.yaml", "--max-parallel", "1")
    wait_until(lambda: states(here)[:1] == ["running"])
    held = launch(here, "hold", "s", "--only", "B", "--only", "slow_s0-*")
    assert held.stdout.startswith("now 2 held\n")
    assert "release s --only B --only 'slow_s0-*'" in held.stdout
    again = launch(here, "slow.yaml").stdout
    assert "left alone: 1 running, 1 queued, 2 held" in again
    assert "release s" in again
    part = launch(here, "status", "s", "--only", "B", "--json").stdout
    assert [(run["variant"], run["state"]) for run in json.loads(part)] == [("B", "held")] * 2
    assert "0 of 2 done, 2 held" in launch(here, "status", "s", "--only", "B", "--watch").stdout
    assert "now 2 queued" in launch(here, "release", "s").stdout
    assert "no run of s (B) is held" in launch(here, "release", "s", "--only", "B").stdout
    assert "stopped; 0 of 2 done, 2 planned" in launch(here, "cancel", "s", "--only", "B").stdout
    assert states(here) == ["running", "queued", "planned", "planned"]
    logs = launch(here, "logs", "s", "--only", "*_s0-*")
    assert re.match(r"slow_s0-\w+ begins at step 0\n", logs.stdout.partition("<==\n")[2])
    assert re.fullmatch(r"B_s0-\w+ has not written a log yet\n", logs.stderr)
    launch(here, "cancel", "s")
    for command in ("cancel", "retry", "status", "logs", "hold", "release"):
        assert "Did you mean 'slow'?" in refused(here, command, "s", "--only", "sloww")


def test_a_dropped_run_that_still_runs_is_named_with_the_command_that_cancels_it(
    here: Path,
) -> None:
    launch(here, "slow.yaml", "--max-parallel", "1")
    wait_until(lambda: states(here)[:1] == ["running"])
    launch(here, "cancel", "s", "--only", "slow_s1-*")
    smaller = SLOW.replace("slow: {}, ", "") + "exclude: [{model.depth: '>9'}]\n"
    (here / "slow.yaml").write_text(smaller)
    told = [launch(here, "plan", "slow.yaml").stdout, launch(here, "slow.yaml").stdout]
    for text in told:
        assert re.search(r"no longer in the grid, kept on disk: 1 run \(slow_s1-\w+\)", text)
        assert 'exclude: {model.depth: ">9"} matches no run' in text
    for text in (*told, launch(here, "status", "s").stdout):
        assert "no longer in the grid, but 1 running; to cancel:" in text
        assert re.search(r"cancel s --only slow$", text, re.MULTILINE)
    assert "stopped; 0 of 2 done" in launch(here, "cancel", "s", "--only", "slow").stdout
    assert "to cancel" not in launch(here, "plan", "slow.yaml").stdout


def test_what_another_submitter_runs_goes_on_after_ctrl_c_and_that_is_said(here: Path) -> None:
    launch(here, "slow.yaml", "--max-parallel", "1")
    wait_until(lambda: states(here)[:1] == ["running"])
    process = begin(here, "slow.yaml", "--wait")
    assert process.stdout is not None
    assert "nothing to submit" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "stopping" not in text
    assert "other runs continue" in text
    assert text.splitlines()[-1].endswith("cancel s")
    assert states(here) == ["running", *["queued"] * 3]


def test_ctrl_c_before_the_first_word_stops_what_was_submitted(here: Path) -> None:
    code = """
from mpdit import text
def count(*_):
    text.count = count_before
    raise KeyboardInterrupt
count_before, text.count = text.count, count
import launch
"""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            LAUNCH.replace("import launch\n", code),
            "slow.yaml",
            "--wait",
        ],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "the runs keep their state" in done.stdout
    assert "no run of s is running" in launch(here, "cancel", "s").stdout


def test_a_renamed_studys_runs_are_tried_again_where_they_are(here: Path) -> None:
    (here / "grid.yaml").write_text(GRID.replace("A:", "raises:"))
    launch(here, "grid.yaml", "--wait", "--only", "raises_s0-*")
    (here / "results/s").rename(here / "results/renamed")
    again = launch(here, "retry", "renamed", "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "renamed: 1 of 1 done" in again.stdout
    assert not (here / "results/s").exists()


def test_a_grid_after_options_is_submitted(here: Path) -> None:
    done = launch(here, "--results", "res", "grid.yaml", "--wait", "--only", "A_s0-*")
    assert done.returncode == 0, done.stderr
    assert len(list((here / "res/s").glob("A_s0-*"))) == 1


def test_latents_can_be_planned_without_a_store_which_submit_says_how_to_make(
    here: Path,
) -> None:
    data = "data: {name: latents, channels: 4, size: 16, classes: 10}"
    (here / "grid.yaml").write_text(GRID.replace("data: digits", data))
    assert launch(here, "plan", "grid.yaml").returncode == 0
    assert "data encode IMAGES" in refused(here, "grid.yaml")


def test_set_values_are_kept_for_a_retry(here: Path) -> None:
    (here / "grid.yaml").write_text(GRID.replace("A:", "raises:"))
    arguments = ("--wait", "--set", "train.steps=3", "--set", "seeds=1")
    assert launch(here, "grid.yaml", *arguments).returncode == 1
    assert launch(here, "retry", "s", "--wait").returncode == 0
    assert states(here) == ["done", "done"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "grd.yaml"], "there is no file grd.yaml. Did you mean 'grid.yaml'?"),
        (["grd.yaml"], "there is no file grd.yaml."),
        (["plam", "grid.yaml"], "plam"),
        (["plan"], "GRID"),
        (["plan", "grid.yaml", "--set", "train.stepz=3"], "Did you mean 'train.steps'?"),
        (["plan", "grid.yaml", "--only", "C"], "--only 'C' matches none of the 4 runs"),
        (["submit", "grid.yaml", "--cluster", "slrum"], "Did you mean 'slurm'?"),
        (["submit", "grid.yaml", "--max-parallel", "0"], "--max-parallel"),
        (["submit", "grid.yaml", "--results", "grid.yaml"], "grid.yaml is a file"),
        (["submit", "grid.yaml", "--set", "data=imagenet128-latents"], "imagenet128-latents"),
        (["status", "s"], "there is no study 's'. There is none in results"),
        (["status"], "there is no study in results"),
        (["status", "--watch"], "--watch"),
        (["logs", "A"], "there is no run 'A'"),
        (["retry", "/"], "/ is not a study"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(here: Path, arguments: list[str], message: str) -> None:
    assert message in refused(here, *arguments)


def test_a_mistyped_study_or_run_suggests_the_nearest(here: Path) -> None:
    launch(here, "grid.yaml", "--wait", "--only", "A")
    (here / "results/s").rename(here / "results/ladder")
    assert "Did you mean 'ladder'?" in refused(here, "status", "laddr")
    name = next((here / "results/ladder").glob("A_s0-*")).name
    assert f"Did you mean '{name}'" in refused(here, "logs", f"{name[:-1]}x")
    assert "could be any of 2 runs" in refused(here, "logs", "A_s")


def test_an_unwritable_results_folder_is_said_before_anything_is_written(here: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (here / "sealed").mkdir(mode=0o500)
    assert "read-only" in refused(here, "submit", "grid.yaml", "--results", "sealed")
