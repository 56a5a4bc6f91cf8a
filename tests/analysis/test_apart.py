"""Tuning on seeds of its own: these seeds choose, and enter no comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.judging import answers, comparison, tuning
from analysis.loading.load import load
from analysis.study import NothingToShow, Study
from mpdit.disk.rundir import RunDir, RunState
from tests.helpers import synthetic

TUNING = (1_000_000, 1_000_001)
COMPARED = {"A-none": (20.0, 21.0, 22.0), "B-cosine": (24.0, 26.0, 25.0)}


def study(path: Path, *, compared: bool = True) -> Study:
    entries = []
    for variant, curve in synthetic.TUNED.items():
        best = min(curve, key=curve.__getitem__)
        cells = [(rate, seed, distance) for rate, distance in curve.items() for seed in TUNING]
        if compared:
            cells += [(best, seed, value) for seed, value in enumerate(COMPARED[variant])]
        for rate, seed, distance in cells:
            run = synthetic.config(synthetic.VARIANTS[variant], seed, learning_rate=rate)
            folder = RunDir(path / f"{variant}_s{seed}-{run.id}")
            folder.write_config(run)
            synthetic.write_evaluation(folder, distance, seed)
            tune = {"tune": {"train.learning_rate": rate}}
            entries.append(synthetic.entry(folder, run, variant) | tune)
    unneeded = dict(entries[-1], name="A-none_s9-000000000000", seed=9, needed=False)
    synthetic.write_listing(path, [*entries, unneeded])
    table = json.loads((path / "study.json").read_text())
    decisions = {"metric": None, "margin": 0.05, "scale": "ratio", "looks": [3], "tuning": TUNING}
    (path / "study.json").write_text(json.dumps({**table, "decisions": decisions}))
    return load(path)


def test_tuning_seeds_enter_no_comparison(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    assert {v: tuple(of.values()) for v, of in answers.outcomes(made).items()} == COMPARED
    found = answers.family(made).decisions["B-cosine", "A-none"]
    assert found.seeds == found.baseline_seeds == 3
    ratio = (24 * 26 * 25) ** (1 / 3) / (20 * 21 * 22) ** (1 / 3)
    assert found.effect == pytest.approx(ratio)
    assert set(comparison.distances(made)["points"]) == {1}  # so that nothing is widened
    assert set(comparison.chosen(made)["seed"]) == {0, 1, 2}


def test_the_tuning_curve_is_of_the_tuning_seeds(tmp_path: Path) -> None:
    curve = tuning.curve(study(tmp_path / "s"))
    means = {
        variant: dict(zip(rows["tune.train.learning_rate"], rows["mean"], strict=True))
        for variant, rows in curve.groupby("variant", observed=True)
    }
    assert means == synthetic.TUNED
    assert dict(zip(curve["variant"], curve["seeds"], strict=True)) == dict.fromkeys(COMPARED, 2)
    assert curve[curve["best"]]["chosen"].tolist() == [3, 3]


def test_before_the_first_comparison_there_is_a_curve_and_no_answer(tmp_path: Path) -> None:
    made = study(tmp_path / "s", compared=False)
    assert len(tuning.curve(made)) == 6
    with pytest.raises(NothingToShow, match="tuning is not over"):
        answers.answers(made)


def test_a_point_that_diverged_is_not_missing(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    runs = [RunDir(path) for path in (tmp_path / "s").glob("A-none_s100000*")]
    for run in (run for run in runs if run.config().train.learning_rate == 1e-4):
        (run.path / "evaluation.jsonl").unlink()
        run.write_state(
            RunState(stage="train", step=9, steps=99, error="the loss is nan at step 9")
        )
    said = tuning.remarks(load(made.path))
    assert any(line.startswith("A-none: every run failed at 1 of 3 points") for line in said)
    assert not any("may still be missing" in line for line in said)
