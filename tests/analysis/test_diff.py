"""How two runs differ."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from analysis.__main__ import main
from analysis.loading.load import load_run
from analysis.report import diff
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

Own = Callable[..., Path]


def of(path: Path, *starts: str) -> dict[str, dict[str, tuple[object, object]]]:
    """Part → what → both values."""
    pair = [load_run(RunDir(next(path.glob(f"{start}*")))) for start in starts]
    found: dict[str, dict[str, tuple[object, object]]] = {}
    for row in diff.differences(*pair):
        found.setdefault(row.part, {})[row.what] = (row.first, row.second)
    return found


def test_config_code_environment_and_result_are_told_apart(own: Own) -> None:
    path = own()
    file = next(path.glob("E-all_s1*/provenance.json"))
    text = file.read_text().replace("abc1234", "def5678").replace("2.9.0", "2.8.0")
    file.write_text(text.replace("laptop", "node7"))
    file = next(path.glob("E-all_s1*/config.yaml"))
    file.write_text(file.read_text().replace("log_every: 50", "log_every: 10"))
    found = of(path, "E-all_s0", "E-all_s1")
    assert found["config"] == {"seed": (0, 1)}
    assert found["execution"] == {"train.log_every": (50, 10)}
    assert found["code"] == {"code": ("abc1234", "def5678")}
    assert found["environment"] == {"host": ("laptop", "node7"), "torch": ("2.9.0", "2.8.0")}
    assert found["result"]["FD-digits@1000"] == (30, 32)
    assert found["result"]["parameters"] == (500, 500)
    assert found["result"]["train time"] == (200, 200)


def test_a_run_is_as_itself(quickstart: Path) -> None:
    found = of(quickstart, "A-none_s0", "A-none_s0")
    assert set(found) == {"result"}
    assert all(first == second for first, second in found["result"].values())


def test_runs_of_two_studies_that_are_not_whole_can_be_held_together(
    own: Own, tmp_path: Path
) -> None:
    path = own(seeds=1)
    cut = next(path.glob("A-none*"))
    for name in ("evaluation.jsonl", "provenance.json", "metrics.jsonl"):
        (cut / name).unlink()
    run = synthetic.config({"depth": 2}, 0)
    other = RunDir(tmp_path / "elsewhere" / "unlisted")
    synthetic.write_run(other, run, 9.0)
    found = list(diff.differences(load_run(RunDir(cut)), load_run(other)))
    rows = {row.what: (row.first, row.second) for row in found}
    assert rows["model.depth"] == (4, 2)
    assert rows["FD-digits@1000"] == (None, 9)
    assert rows["host"] == (None, "laptop")
    assert rows["state"] == ("unfinished", "done")


def test_the_command_prints_it_in_80_columns(
    own: Own, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = own()
    for file in path.glob("E-all_s0*/provenance.json"):
        file.write_text(file.read_text().replace("abc1234", "f" * 40))
    results = ["--results", str(path.parent)]
    run = next(path.glob("E-all_s0*"))
    assert main(["diff", "A-none_s0", str(run), *results]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert max(map(len, lines[2:])) <= 80  # the first two are paths
    assert any(line.split() == ["FD-digits@1000", "40", "30", "−10"] for line in lines)
    assert any(line.split("  ")[-1].strip() == "+2 min 40 s" for line in lines)
    assert "environment: the same" in lines
    assert "git diff abc1234 ffffffffffff -- mpdit" in printed
    assert any(line.split() == ["model.mp_silu", "False", "True"] for line in lines)


def test_a_damaged_config_is_said(own: Own) -> None:
    path = own(seeds=1)
    (next(path.glob("B-cosine*")) / "config.yaml").write_text("model: {depth: [}")
    pair = [load_run(RunDir(next(path.glob(f"{name}*")))) for name in ("A-none", "B-cosine")]
    console = Console(width=80, record=True)
    with console.capture() as captured:
        diff.show(*pair, console)
    assert "config.yaml cannot be read" in captured.get()


def test_a_mistyped_run_is_told_the_nearest(
    quickstart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(quickstart.glob("A-none_s0*")).name
    results = ["--results", str(quickstart.parent)]
    for words, said in (
        ([run.replace("none", "nome"), run], f"Did you mean '{run}'?"),
        (["A-none", run], "could be any of 2 runs"),
    ):
        assert main(["diff", *words, *results]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert said in printed.err


def test_several_studies_have_one_report_where_it_is_told_to_go(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.report.page.FIGURES", {})
    first, second = own(seeds=1), synthetic.write_study(tmp_path / "two", seeds=2)
    assert main([str(first), str(second)]) == 2
    assert "--out DIR" in capsys.readouterr().err
    assert main([str(first), str(second), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "14 of 14 runs done" in page
    assert "also in own (" in page
