"""Folders of any name: printed commands can be pasted, any terminal shows them, Slurm gets them."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import launch
from analysis.__main__ import main as analyse
from analysis.loading.load import load
from analysis.report import terminal
from mpdit import slurm
from mpdit.catalogue.__main__ import main as list_catalogue
from mpdit.disk.rundir import RunDir, chosen_run, find_run
from mpdit.errors import ConfigError
from mpdit.evaluate import measure_again
from mpdit.study.cluster import arrays
from mpdit.study.status import survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, submit
from tests.helpers import stand_in, synthetic
from tests.helpers.launching import LAUNCH
from tests.helpers.plans import BASE, plan

ODD = 'it\'s $HOME; #1 ünï "q"'


def main(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        launch.main(list(words))
    return int(ended.value.code or 0)


def test_the_commands_that_are_printed_name_their_folders_for_a_shell(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(f"{BASE}seeds: 1")
    study = str(Path(ODD, "s"))
    words = ["submit", "grid.yaml", "--results", ODD]
    first, *others = launch_here(tmp_path, *words)
    assert first.startswith("s: 1 run submitted")
    watch, cancel = (shlex.split(line) for line in others)
    assert (watch[-3:], cancel[-2:]) == (["status", study, "--watch"], ["cancel", study])
    assert "s" in subprocess.check_output(others[1], shell=True, cwd=tmp_path, text=True)
    *_, last = launch_here(tmp_path, *words, "--wait")
    assert shlex.split(last.removeprefix("next:"))[-2:] == ["report", study]


def launch_here(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_message_that_names_a_command_quotes_its_folder(tmp_path: Path) -> None:
    run = RunDir(tmp_path / ODD)
    run.write_config(synthetic.config({}, 0))
    with pytest.raises(ConfigError) as caught:
        measure_again(run)
    command = str(caught.value).partition("(")[2].removesuffix(")")
    assert shlex.split(command)[-2:] == ["run", str(run.path)]


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", "escape\x1b[31m"])
def test_a_control_character_in_a_path_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="has a control character") as caught:
        submit(plan("seeds: 1"), tmp_path / name, Execution(command=stand_in.COMMAND))
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["50%a done", "a%j", "100%", "back\\slash"])
def test_what_slurm_would_replace_in_a_path_is_refused_before_anything_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(slurm, "run", lambda *_: pytest.fail("Slurm was asked"))
    made = plan("seeds: 1\nslurm: {time: 1}")
    with pytest.raises(ConfigError, match="which Slurm replaces in the names of logs"):
        submit(made, tmp_path / name, Execution("slurm", command=stand_in.COMMAND))
    with pytest.raises(ConfigError, match="which Slurm replaces in the names of logs"):
        arrays.preview(StudyDir(tmp_path / name), {}, None, None)
    assert list(tmp_path.iterdir()) == []


def test_only_a_folder_with_a_config_is_taken_for_a_run(tmp_path: Path) -> None:
    how = Execution(command=stand_in.COMMAND)
    study = tmp_path / "results" / "s"
    study.mkdir(parents=True)
    (study / "notes-20250101").touch()
    (study / "backup-20250102").mkdir()
    done = submit(plan("seeds: 1"), tmp_path / "results", how)
    assert done.process is not None
    assert done.process.wait(60) == 0
    assert submit(plan("seeds: 1"), tmp_path / "results", how).started == ()
    assert [status.name for status in survey(StudyDir(study))] == list(done.runs)


def test_a_run_is_found_by_its_study_and_the_beginning_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = Path("results")
    for study in ("one", "two"):
        for run in plan("variants: {A: {}, B: {mp_silu: true}}").runs:
            RunDir(results / study / run.name).write_config(run.config)
    with pytest.raises(ConfigError, match=r"any of 2 runs: .* logs STUDY --only"):
        find_run("A_s0", results)
    with pytest.raises(ConfigError, match="there is no run 'three/A_s0'"):
        find_run("three/A_s0", results)
    for word in ("two/A_s0", "results/two/A_s0", str(tmp_path / "results" / "two" / "A_s0")):
        (found,) = {find_run(word, results), chosen_run(word, results)}
        assert (found.path.parent.name, found.name[:5]) == ("two", "A_s0-")


def test_a_file_that_an_older_version_took_for_a_run_does_not_stop_the_status(
    tmp_path: Path,
) -> None:
    (tmp_path / "notes-20250101").touch()
    synthetic.write_listing(
        tmp_path, [{"name": "notes-20250101", "id": "20250101", "variant": "notes"}]
    )
    (status,) = survey(StudyDir(tmp_path))
    assert status.state == "planned"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_no_screen_needs_utf_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.chdir(tmp_path)
    study = synthetic.write_study(Path("results/Δ-ünï"), E_all="größer ✓")
    Path("grid.yaml").write_text(f"{BASE}description: Δ ✓\nseeds: 1")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["catalogue"])
    assert main("status", "Δ-ünï") == 0
    assert main("plan", "grid.yaml") == 0
    assert list_catalogue() == 0
    names = [folder.name for folder in sorted(study.glob("[AB]-*_s0-*"))]
    assert analyse(["diff", *names]) == 0
    terminal.show(load(study))
    out.flush()
    assert out.buffer.getvalue().count(b"?") > 20  # type: ignore[attr-defined]
