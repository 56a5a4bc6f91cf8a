"""The records beside the distance: in the tables where there are any, and mixed with no other."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis import tables
from analysis.judging import comparison, conclusions, words
from analysis.loading.load import load
from analysis.report import paper, terminal
from analysis.study import Study
from mpdit.disk.files import keep_rows, read_rows
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic


def runs(path: Path) -> list[RunDir]:
    return [RunDir(file.parent) for file in sorted(path.glob("*/config.yaml"))]


def with_records(path: Path) -> Study:
    """Every run with repeats one above and one below, a limit two below, a floor, and a sweep."""
    for order, run in enumerate(runs(path)):
        own = load(path).evaluations.set_index("run")["value"][run.name]

        def add(value: float, run: RunDir = run, seed: int = order, **changes: Any) -> None:
            synthetic.write_evaluation(run, value, seed, **changes)

        add(own - 1, role="repeat", seed=100)
        add(own + 1, role="repeat", seed=101)
        add(own + 50, role="repeat", seed=102, metric="FD-digits@9", count=9)
        add(own + 90, role="repeat", seed=103, weights="w1")
        add(own + 70, role="repeat", seed=104, reference={**synthetic.REFERENCE, "hash": "r1"})
        add(own - 2, role="limit", metric="FD-digits@inf", standard_error=0.5)
        add(1.25, role="floor", metric="FD-digits@299", count=299)
        add(0.8, role="run", metric="precision-digits@1000")
        add(0.1, role="sweep")
    return load(path)


def test_the_table_of_distances_is_that_of_the_runs_own_sets(tmp_path: Path) -> None:
    path = synthetic.write_study(tmp_path / "study")
    before = tables.ladder(load(path))
    study = with_records(path)
    after = tables.ladder(study)
    assert list(after["metric"]) == list(before["metric"])
    for column in ("mean", "half_width", "effect", "low", "high"):
        assert list(after[column]) == pytest.approx(list(before[column]), nan_ok=True), column
    assert conclusions.statements(study) == conclusions.statements(load(path))
    assert comparison.left_out(study) == []


def test_limit_spread_and_floor_stand_beside_the_distance(tmp_path: Path) -> None:
    path = synthetic.write_study(tmp_path / "study")
    plain = tables.pretty(tables.ladder(load(path)))
    assert "N → ∞" not in plain
    study = with_records(path)
    table = tables.ladder(study)
    assert table["limit"].tolist() == pytest.approx((table["mean"] - 2).tolist())
    assert table["limit_half"].tolist() == pytest.approx(table["half_width"].tolist())
    assert table["sampling_sd"].tolist() == pytest.approx([1.0] * len(table))
    assert table["floor"].tolist() == pytest.approx([1.25] * len(table))
    text = tables.pretty(table)
    assert text.columns[2] == "N → ∞"
    assert comparison.floor_statement(study) == (
        "Real held-out images have FD-digits@299 1.25: the floor."
    )
    assert r"N $\to$ $\infty$" in tables.latex(text)
    said = words.explanation(study)
    for part in ("FD-digits@299 1.25: the floor", "N → ∞ is", "Sampling SD is"):
        assert part in said


def test_what_was_measured_against_a_reference_that_has_changed_since_does_not_count(
    tmp_path: Path,
) -> None:
    path = synthetic.write_study(tmp_path / "study")
    expected = tables.ladder(with_records(path))
    for run in runs(path):
        file = run.path / "evaluation.jsonl"
        rows = read_rows(file)
        other = {**synthetic.REFERENCE, "hash": "r1"}
        changed = [{**row, "value": row["value"] + 5, "reference": other} for row in rows]
        keep_rows(file, [*changed, *rows])
    assert tables.ladder(load(path)).equals(expected)


def test_the_report_says_how_the_samples_were_drawn(tmp_path: Path) -> None:
    path = synthetic.write_study(tmp_path / "study")
    usual = {"steps": 20, "guidance": 1.5, "ema_std": 0.05, "sampler": "ddpm",
             "precision": "float32", "to_uint8": "round"}  # fmt: skip
    other = {**usual, "sampler": "dpm++", "precision": "bfloat16", "to_uint8": "truncate"}
    for sampling, part in (
        (usual, "Sampled by ddpm in 20 steps with"),
        (other, "Sampled by dpm++ in 20 steps (bfloat16, to 8 bits by truncate) with"),
    ):
        for run in runs(path):
            (run.path / "evaluation.jsonl").unlink()
            synthetic.write_evaluation(run, 3.0, 0, sampling=sampling)
        assert part in words.explanation(load(path))


def test_without_repeats_there_is_no_spread(tmp_path: Path) -> None:
    table = tables.ladder(load(synthetic.write_study(tmp_path / "study")))
    assert all(math.isnan(value) for value in table["sampling_sd"])


def test_runs_that_were_sampled_differently_are_called_out(tmp_path: Path) -> None:
    path = synthetic.write_study(tmp_path / "quickstart")
    sampling = {"steps": 50, "guidance": 1.5, "ema_std": 0.05}
    for number, run in enumerate(runs(path)):
        (run.path / "evaluation.jsonl").unlink()
        changed = {"guidance": 7.0, "steps": 2} if not number else {}
        # each run's own
        own = {"seed": number, "ema_error": 0.01 * number, "snapshot": 100 * number}
        synthetic.write_evaluation(run, 3.0, number, sampling=sampling | changed | own)
    study = load(path)
    assert comparison.differing(study) == {
        "sampling.steps": ["2", "50"],
        "sampling.guidance": ["7", "1.5"],
    }
    said = conclusions.statements(study)
    assert said[0].startswith("The runs were measured with different sampling.steps (2, 50)")
    against = [found for found in said if " against A-none" in found]
    assert len(against) == 4
    assert all("not comparable" in found for found in against)
    said = words.explanation(study)
    assert "in 2 or 50 steps with guidance 7 or 1.5 and EMA width 0.05." in said
    console = Console(file=io.StringIO(), width=2000)
    terminal.show(study, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert said in shown
    page = paper.write(tmp_path, tmp_path / "paper", say=lambda _: None).read_text()
    for warning in words.warnings(study):
        assert warning in shown
        assert f"- Note: {warning}." in page
    assert said in page
