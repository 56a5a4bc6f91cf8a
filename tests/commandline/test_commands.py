"""One command line: its help, its speed, its mistakes, what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpdit.commandline.commands import COMMANDS
from tests.helpers import ROOT

DOORS = {"launch.py": [str(ROOT / "launch.py")], "python -m mpdit": ["-m", "mpdit"]}


def ran(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, *words]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_has_the_same_commands_on_one_page(door: str) -> None:
    page = ran(*DOORS[door], "--help")
    assert page.returncode == 0
    listed = [line[2:].split("  ")[0] for line in page.stdout.splitlines() if line[:2] == "  "]
    assert listed == [f"{name} {row.operands}".rstrip() for name, row in COMMANDS.items()]
    assert f"usage: {door} COMMAND" in page.stdout


def test_every_command_lists_its_options_without_waiting_for_libraries() -> None:
    code = (
        "import sys\n"
        "from mpdit.commandline.commands import COMMANDS\n"
        "from mpdit.commandline.door import main\n"
        "for name in COMMANDS:\n"
        "    try: main([*name.split(), '--help'])\n"
        "    except SystemExit as end: assert not end.code, name\n"
        "print(*{'torch', 'numpy', 'pandas', 'rich'} & set(sys.modules))"
    )
    done = ran("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
    assert done.stdout.count("usage: ") == len(COMMANDS)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["statsu", "s"], "'status'"),
        (["data", "chek", "x"], "'check'"),
        (["plan", "x.yaml", "--jsn"], "'--json'"),
        (["sample", "x", "--guidence", "2"], "'--guidance'"),
        (["report", "--reslts", "x"], "'--results'"),
        (["completion", "bush"], "bash"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_a_mistyped_word_is_one_line_with_the_nearest_and_status_2(
    door: str, words: list[str], nearest: str
) -> None:
    done = ran(*DOORS[door], *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert nearest in line


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("mpdit.run", []),
        ("mpdit.sample", []),
        ("mpdit.evaluate", []),
        ("mpdit.ema", []),
        ("mpdit.data", ["encode"]),
        ("mpdit.official", ["convert"]),
        ("analysis", []),
        ("analysis", ["diff"]),
    ],
)
def test_each_module_is_its_commands_door_too(module: str, words: list[str]) -> None:
    help_page = ran("-m", module, *words, "--help")
    assert help_page.returncode == 0
    done = ran("-m", module, *words)
    assert done.returncode == 2
    assert f"(see python -m {' '.join((module, *words))} --help)" in done.stderr


def completed(here: Path, line: str) -> set[str]:
    """What argcomplete offers at the end of a line."""
    out = here / "offered"
    shell = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "mpdit"], cwd=here, env=os.environ | shell, check=True)
    return {word.strip() for word in out.read_text().split("\n")}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mpdit re", {"retry", "release", "report"}),
        ("mpdit data ", {"check", "encode", "verify", "reference", "-h", "--help"}),
        ("mpdit status qu", {"quick"}),
        ("mpdit report qu", {"quick"}),
        ("mpdit sample A_", {"A_s0-0123456789ab"}),
        ("mpdit plan m", {"mine.yaml"}),
        ("mpdit plan exp", {"experiments/"}),
        ("mpdit submit --max", {"--max-parallel"}),
        ("mpdit sample x --solver dp", {"dpm++"}),
    ],
)
def test_a_shell_completes_commands_options_studies_runs_and_grids(
    tmp_path: Path, line: str, offered: set[str]
) -> None:
    run = tmp_path / "results" / "quick" / "A_s0-0123456789ab"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (run.parent / "study.json").touch()
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "experiments").mkdir()
    assert completed(tmp_path, line) == offered


def test_bash_asks_the_program(tmp_path: Path) -> None:
    script = ran("-m", "mpdit", "completion", "bash").stdout
    (tmp_path / "mpdit").write_text(f'#!/bin/sh\nexec {sys.executable} -m mpdit "$@"\n')
    (tmp_path / "mpdit").chmod(0o755)
    test = (
        f"{script}\nCOMP_WORDS=(mpdit pub)\nCOMP_CWORD=1\nCOMP_LINE='mpdit pub'\nCOMP_POINT=9\n"
        "COMP_TYPE=9\n_python_argcomplete mpdit\necho ${COMPREPLY[@]}\n"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", test], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["publish"], done.stderr
