"""What another user has closed is named, and the rest is shown."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

import launch
from analysis.__main__ import main as analyse
from analysis.loading.load import load
from mpdit.errors import EXIT_DONE, EXIT_FAILED, ConfigError
from mpdit.study.status import survey
from mpdit.study.studydir import StudyDir
from tests.helpers import synthetic
from tests.helpers.permissions import sealed

GRID = """\
study: s
base: {data: digits, model: {depth: 1, width: 16, heads: 2, patch_size: 4}, train: {steps: 10}}
seeds: 2
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))
    return synthetic.write_study(tmp_path / "results" / "s", seeds=1)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        launch.main(list(words))
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", ["status", "retry", "cancel", "plan", "analysis", "logs"])
def test_a_closed_study_is_one_message(
    study: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("grid.yaml").write_text(GRID)
    run_name = next(study.glob("A-none*")).name
    target = {"plan": "grid.yaml", "analysis": str(study), "logs": str(study / run_name)}
    with sealed(study):
        word = target.get(command, "s")
        status = analyse([word]) if command == "analysis" else run(command, word)
    assert status == EXIT_FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "results/s" in line
    assert line.endswith("Permission denied")


def test_status_without_a_study_has_a_line_for_each_that_can_be_read(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("t", "closed", "damaged"):
        shutil.copytree(study, study.parent / name)
    (study.parent / "damaged" / "study.json").write_text("{")
    done = Counter(status.state for status in survey(StudyDir(study)))
    with sealed(study.parent / "closed"):
        assert run("status") == EXIT_DONE
        told = capsys.readouterr()
        assert run("status", "--json") == EXIT_DONE
        rows = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in told.out.splitlines()] == ["s", "t"]
    for name in ("closed", "damaged"):
        assert any(name in line for line in told.err.splitlines())
    assert rows == [{"study": name, **done} for name in ("s", "t")]


def test_the_status_names_a_closed_run_and_shows_the_others(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = next(study.glob("B-cosine*"))
    with sealed(closed):
        assert run("status", "s") == EXIT_DONE
        said = capsys.readouterr().out
        assert f"cannot read {closed} (Permission denied)" in said
        assert "6 of 7 done, 1 unreadable" in said
        assert run("cancel", "s") == EXIT_DONE


@pytest.mark.parametrize("name", ["state.json", "evaluation.jsonl", "lock", "log.txt"])
def test_a_closed_file_does_not_hide_the_other_runs(
    study: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next(study.glob("B-cosine*")) / name
    file.touch()
    with sealed(file):
        assert run("status", "s") == EXIT_DONE
    done = 6 if name == "evaluation.jsonl" else 7
    assert f"{done} of 7 done" in capsys.readouterr().out


def test_a_closed_log_is_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(study.glob("B-cosine*")) / "log.txt"
    file.touch()
    with sealed(file):
        assert run("logs", file.parent.name) == EXIT_FAILED
    said = capsys.readouterr().err
    assert said == f"error: {file.relative_to(Path.cwd())}: Permission denied\n"


def test_a_closed_claim_is_kept_and_named(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    claim = study / ".jobs" / "20250101-000000-0.jsonl"
    claim.parent.mkdir()
    claim.write_text('{"cluster": "local", "runs": []}\n')
    with sealed(claim):
        assert run("status", "s") == EXIT_DONE
        StudyDir(study).drop_dead_claims()
    assert claim.exists()
    assert f"{claim} cannot be read" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        *("config.yaml", "metrics.jsonl", "magnitudes.jsonl", "evaluation.jsonl", "model.json"),
        *("provenance.json", ""),
    ],
)
def test_what_is_closed_to_the_analysis_is_named_and_the_rest_is_loaded(
    study: Path, name: str
) -> None:
    closed = next(study.glob("B-cosine*"))
    with sealed(closed / name):
        found = load(study)
    assert set(found.missing["run"]) == {closed.name}
    assert f"{name or 'config.yaml'} cannot be read" in found.missing["what"].iloc[0]
    is_whole = name not in ("config.yaml", "")
    assert len(found.runs) == 6 + is_whole


def test_a_study_whose_runs_are_all_closed_is_one_message(study: Path) -> None:
    with sealed(*study.glob("*-*")), pytest.raises(ConfigError, match=f"{study}: no run can be"):
        load(study)


@pytest.mark.parametrize("name", ["held.txt", ".waiting.json"])
def test_a_closed_list_of_a_study_is_named_and_counts_as_empty(
    study: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = study / name
    file.touch()
    with sealed(file):
        assert run("status", "s") == EXIT_DONE
    assert f"{file} cannot be read (Permission denied)" in caplog.text
