"""What a user can get wrong in a file of ideas is one message, with the file and the line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mpdit import extensions
from mpdit.catalogue import TABLES
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_FAILED, ConfigError
from mpdit.flops import forward_flops
from tests.helpers import ROOT
from tests.helpers.ideas import GRID, IDEAS, write_grid
from tests.helpers.plans import load_plan
from tests.helpers.processes import RUN

FLAG = "from mpdit.catalogue import flag\n"


@pytest.mark.parametrize(
    ("idea", "line", "said"),
    [
        ("import nothing_of_this_name\n", 1, "ModuleNotFoundError"),
        ("x = 1\ndef broken(:\n", 2, "not Python"),
        ("def f():\n    return 1 / 0\n\nf()\n", 2, "ZeroDivisionError"),
        (f"{FLAG}@flag('mp_silu', code='x', does='')\ndef f(m): ...\n", 2, "'mp_silu' exists"),
        (f"{FLAG}@flag('mine', code='cos', does='')\ndef f(m): ...\n", 2, "'cosine_attention'"),
        (f"{FLAG}@flag('mine', cod='x', does='')\ndef f(m): ...\n", 2, "TypeError"),
        ("x = 1\n", None, "registers nothing"),
    ],
)
def test_a_broken_extension_is_one_message_with_file_and_line(
    tmp_path: Path, idea: str, line: int | None, said: str
) -> None:
    rows = {kind: list(table) for kind, table in TABLES.items()}
    with pytest.raises(ConfigError) as raised:
        load_plan(write_grid(tmp_path, idea))
    text = str(raised.value)
    assert said in text
    assert "\n" not in text
    assert f"{tmp_path / 'idea.py'}" + (f":{line}: " if line else "") in text
    assert {kind: list(table) for kind, table in TABLES.items()} == rows


FAILING = """\
from mpdit.catalogue import flag


@flag("mine", code="x", does="")
def change(model):
    {}
"""
BODIES = ["model.blokcs", "model.forward = lambda *_: nothing_of_this_name"]
"""The sixth line, which fails when the model is built, or when it is run."""


@pytest.mark.parametrize(
    ("body", "command"),
    [
        (BODIES[0], ["plan"]),
        (BODIES[1], ["submit"]),
        (BODIES[0], ["submit", "--yes"]),
        pytest.param(BODIES[1], ["plan"], marks=pytest.mark.long),
        pytest.param(BODIES[0], ["submit"], marks=pytest.mark.long),
    ],
)
def test_an_idea_that_fails_is_one_message_with_its_file_and_line(
    tmp_path: Path, body: str, command: list[str]
) -> None:
    grid = GRID.replace("sigmoid_attention", "mine")
    file = write_grid(tmp_path, FAILING.format(body), grid)
    words = [sys.executable, ROOT / "launch.py", *command, file, "--results", tmp_path / "results"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'idea.py'}:6: ")
    assert done.stderr.endswith(" (variant x)\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


PART = """\
from mpdit.catalogue import part


@part("turn", does="a matrix product for each block")
def turn(x, values):
    return {}
"""


def test_a_part_that_fails_is_told_by_the_plan(tmp_path: Path) -> None:
    grid = GRID.replace(
        "sigmoid_attention: [false, true]", "model.conditioning: [adaln, turn+gate]"
    )
    file = write_grid(tmp_path, PART.format("x @ values"), grid)
    words = [sys.executable, ROOT / "launch.py", "plan", file]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'idea.py'}:6: ")
    assert done.stderr.count("\n") == 1


def test_the_matrix_products_of_a_part_are_counted(tmp_path: Path) -> None:
    grid = GRID.replace(
        "sigmoid_attention: [false, true]", "model.conditioning: [adaln, turn+gate]"
    )
    without = load_plan(write_grid(tmp_path, PART.format("x + values"), grid)).runs[1].config
    flops = forward_flops(without.model, without.data.spec)
    extensions.unload("idea")
    # (tokens, width) by (width, tokens) and back, in two sublayers of the block and the final layer
    product = "x + (x @ x.mT) @ x * values"
    config = load_plan(write_grid(tmp_path, PART.format(product), grid)).runs[1].config
    tokens, width = 4, config.model.width
    more = 2 * 2 * tokens * tokens * width
    assert forward_flops(config.model, config.data.spec) - flops == 3 * more


@pytest.mark.long
def test_a_run_whose_idea_fails_records_its_file_and_line(tmp_path: Path) -> None:
    grid = GRID.replace("sigmoid_attention", "mine")
    run = RunDir(tmp_path / "run")
    made = load_plan(write_grid(tmp_path, FAILING.format(BODIES[1]), grid))
    run.write_config(made.runs[1].config)
    done = subprocess.run([*RUN, str(run.path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    state = run.state()
    assert state is not None
    assert state.error is not None
    assert state.error.startswith("extensions/idea.py:6: NameError: ")
    assert "Traceback" in run.log.read_text()
    assert done.stderr.splitlines()[-1].startswith(f"error: {run.path}/extensions/idea.py:6: ")


def test_a_file_that_an_idea_does_not_find_is_told_with_the_ideas_line(tmp_path: Path) -> None:
    grid = GRID.replace("sigmoid_attention", "mine")
    run = RunDir(tmp_path / "study" / "run")
    body = "model.forward = lambda *_: open('/nowhere/at/all')"
    run.write_config(load_plan(write_grid(tmp_path, FAILING.format(body), grid)).runs[1].config)
    done = subprocess.run([*RUN, str(run.path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_FAILED
    state = run.state()
    assert state is not None
    assert state.error is not None
    assert "extensions/idea.py:6: FileNotFoundError: " in state.error


def test_two_extensions_with_one_name_for_their_rows_are_one_message(tmp_path: Path) -> None:
    text = (IDEAS / "log_scale.py").read_text()
    (tmp_path / "second.py").write_text(text)
    grid = GRID.replace("[idea.py]", "[idea.py, second.py]")
    with pytest.raises(ConfigError, match=r"second.py:\d+: .*'log_scale' exists .*idea.py:\d+"):
        load_plan(write_grid(tmp_path, text, grid))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("extensions: idea.py", r"grid.yaml:2: extensions: should be a list"),
        ("extensions: [ideas.py]", r"grid.yaml:2: extensions: there is no file .*ideas.py"),
        ("extensions: [idea.yaml]", r"grid.yaml:2: extensions: .*ending in \.py"),
        ("extensions: [idea.py, idea.py]", r"grid.yaml:2: extensions: .*'idea' is listed"),
    ],
)
def test_a_wrong_list_of_extensions_is_said_with_its_line(
    tmp_path: Path, written: str, said: str
) -> None:
    grid = GRID.replace("extensions: [idea.py]", written)
    with pytest.raises(ConfigError, match=said):
        load_plan(write_grid(tmp_path, grid=grid))


def test_a_flag_that_no_extension_adds_is_an_unknown_key(tmp_path: Path) -> None:
    grid = GRID.replace("sigmoid_attention: [", "sigmoid_atention: [")
    with pytest.raises(ConfigError, match=r"unknown key. Did you mean '.*sigmoid_attention'"):
        load_plan(write_grid(tmp_path, grid=grid))
