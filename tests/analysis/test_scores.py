"""Metrics beside the distance, also those of a user's extension."""

import math
from pathlib import Path
from typing import Any

import pytest

from analysis import NothingToShow, Study, figures, tables
from analysis.judging import conclusions, distances, words
from analysis.loading.load import load
from analysis.report import page
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

VALUES = {"A-none": (0.5, 0.75), "B-cosine": (0.25, 0.5)}


def measured(path: Path, *metrics: dict[str, Any], distance: bool = True) -> Study:
    """Two variants with two seeds; ``metrics`` are further rows, of VALUES."""
    entries = []
    for variant, values in VALUES.items():
        for seed, value in enumerate(values):
            run = synthetic.config(synthetic.VARIANTS[variant], seed)
            folder = RunDir(path / f"{variant}_s{seed}-{run.id}")
            synthetic.write_run(folder, run, synthetic.DISTANCES[variant][seed])
            if not distance:
                (folder.path / "evaluation.jsonl").unlink()
            for row in metrics:
                synthetic.write_evaluation(folder, value, seed, **row)
            entries.append(synthetic.entry(folder, run, variant))
    return load(synthetic.write_listing(path, entries))


MMD = {"metric": "MMD-digits@1000", "better": "lower"}
RECALL = {"metric": "recall-digits@1000", "better": "higher"}
SPREAD = {"metric": "spread-digits@1000"}


def test_every_metric_has_a_column_with_its_mean_and_interval(tmp_path: Path) -> None:
    study = measured(tmp_path, RECALL, MMD, SPREAD, {**RECALL, "role": "sweep"})
    numbers = tables.metrics(study)
    recall = numbers[numbers["metric"] == "recall-digits@1000"].set_index("variant")
    assert list(recall["mean"]) == [0.625, 0.375]
    assert list(recall["seeds"]) == [2, 2]
    assert recall["half_width"].tolist() == pytest.approx([0.125 * 12.706204736] * 2)
    text = tables.TABLES["metrics"].text(numbers)
    assert list(text.columns) == [
        *("variant", "FD-digits@1000 ↓", "recall-digits@1000 ↑", "MMD-digits@1000 ↓"),
        "spread-digits@1000",
    ]
    assert text["variant"].tolist() == list(VALUES)
    assert text["recall-digits@1000 ↑"].iloc[0] == "0.6250 ± 1.5883"
    assert text["FD-digits@1000 ↓"].iloc[0] == "42.00 ± 25.41"
    assert r"MMD-digits@1000 $\downarrow$" in tables.latex(text)
    assert r"recall-digits@1000 $\uparrow$" in tables.latex(text)
    # and nothing else is judged by them
    assert distances.label(study) == "FD-digits@1000"


def test_a_variant_without_a_metric_has_a_dash(tmp_path: Path) -> None:
    study = measured(tmp_path, RECALL)
    for file in tmp_path.glob("B-cosine*/evaluation.jsonl"):
        file.write_text(file.read_text().splitlines()[0] + "\n")
    study = load(tmp_path)
    text = tables.TABLES["metrics"].text(tables.metrics(study))
    assert text["recall-digits@1000 ↑"].tolist() == ["0.6250 ± 1.5883", "–"]


def test_a_study_with_the_judged_metric_alone_has_no_such_table(tmp_path: Path) -> None:
    for found in (
        measured(tmp_path / "distance"),
        measured(tmp_path / "mmd", MMD, distance=False),
        measured(tmp_path / "sweep", {**RECALL, "role": "sweep"}),
    ):
        with pytest.raises(NothingToShow, match="no metric but the one"):
            tables.metrics(found)


def test_a_tuned_variant_is_at_the_point_of_the_comparing_tables(tmp_path: Path) -> None:
    path = synthetic.write_tuned(tmp_path / "tuned")
    before = tables.ladder(load(path)).set_index("variant")
    for file in path.glob("*/config.yaml"):
        rate = load_rate(file)
        synthetic.write_evaluation(RunDir(file.parent), rate, 0, **RECALL)
    numbers = tables.metrics(load(path)).set_index(["metric", "variant"])
    recall = numbers.loc["recall-digits@1000"]
    assert recall["mean"].to_dict() == pytest.approx({"A-none": 1e-3, "B-cosine": 1e-2})
    own = numbers.loc["FD-digits@1000"]
    assert own["mean"].to_dict() == before["mean"].to_dict()
    assert own["half_width"].to_dict() == before["half_width"].to_dict()


def load_rate(config: Path) -> float:
    return float(RunDir(config.parent).config().train.learning_rate)


def test_without_a_distance_a_metric_that_says_lower_is_what_is_judged_by(tmp_path: Path) -> None:
    study = measured(tmp_path, RECALL, MMD, distance=False)
    assert distances.label(study) == "MMD-digits@1000"
    table = tables.ladder(study).set_index("variant")
    assert (table.loc["B-cosine", "effect"], table.loc["B-cosine", "scale"]) == (
        -0.25,
        "difference",
    )
    assert math.isfinite(table.loc["B-cosine", "low"])
    said = conclusions.statements(study)[0]
    assert "MMD-digits@1000 −0.25" in said
    explained = words.explanation(study)
    assert explained.startswith("MMD-digits@1000 is measured on 1000 samples and 1797 images")
    assert "Fréchet" not in explained
    assert figures.distance(study).axes[0].get_xlabel().startswith("MMD-digits@1000")


def test_where_no_metric_can_judge_the_message_names_those_there_are(tmp_path: Path) -> None:
    study = measured(tmp_path, SPREAD, distance=False)
    expected = (
        "no run has been evaluated by a metric whose better direction is known; they have "
        "spread-digits@1000"
    )
    with pytest.raises(NothingToShow) as error:
        tables.ladder(study)
    assert str(error.value) == expected
    assert conclusions.statements(study) == [f"N{expected[1:]}."]
    html = page.write(study, tmp_path / "report").read_text()
    assert 'id="metrics"' in html
    assert expected in html


def test_a_summary_of_results_without_the_column_is_judged_as_before(study: Study) -> None:
    assert "better" not in study.evaluations
    assert distances.label(study) == "FD-digits@1000"
    assert distances.better(study) == {"FD-digits@1000": "lower"}
