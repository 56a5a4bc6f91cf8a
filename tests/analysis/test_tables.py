"""Tables against numbers computed by hand from synthetic.DISTANCES."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import NothingToShow, Study, tables
from analysis.judging import comparison, conclusions, distances
from analysis.loading.load import load
from analysis.tables import cells, origins
from mpdit.disk.rundir import RunDir, RunState
from tests.helpers import synthetic

Own = Callable[..., Path]
T_1 = 12.706204736  # the 97.5 % quantile of Student's t with one degree of freedom


def test_the_ladder_holds_the_variants_that_share_the_firsts_conditioning(study: Study) -> None:
    table = tables.ladder(study).set_index("variant")
    assert list(table.index) == list(synthetic.LADDER)
    assert set(table["baseline"]) == {"A-none"}
    assert set(table["metric"]) == {"FD-digits@1000"}
    last = table.loc["E-all"]
    assert (last["mean"], last["seeds"]) == (31, 2)
    assert last["half_width"] == pytest.approx(T_1 * 1)  # 30 and 32: s / √2 = 1
    assert last["effect"] == pytest.approx((30 * 32 / 40 / 44) ** 0.5)
    assert last["low"] < last["effect"] < last["high"]
    assert (last["parameters"], last["relative_size"]) == (500, 0.25)
    assert last["train_seconds"] == 200
    assert math.isnan(table.loc["A-none", "effect"])


def test_modulations_are_found_by_their_configs_not_their_names(own: Own) -> None:
    study = load(own(E_all="zebra", E_all_rotation="apple"))
    table = tables.modulation(study)
    assert list(table["variant"]) == ["zebra", "apple", "E-all_rotation-scale"]
    assert set(table["baseline"]) == {"zebra"}
    gains = [(34 * 33 / 30 / 32) ** 0.5, (31 * 32.5 / 30 / 32) ** 0.5]
    assert list(table["effect"])[1:] == pytest.approx(gains)
    assert list(table["relative_size"])[1:] == pytest.approx([-0.1, -0.05])


def make_study(path: Path, variants: dict[str, dict[str, object]]) -> Study:
    entries = []
    for variant, model in variants.items():
        run = synthetic.config(model, seed=0)
        folder = RunDir(path / f"{variant}-{run.id}")
        synthetic.write_run(folder, run, 10.0 + len(entries))
        entries.append(synthetic.entry(folder, run, variant))
    return load(synthetic.write_listing(path, entries))


def test_every_model_size_has_its_own_baseline(tmp_path: Path) -> None:
    cosine = {"cosine_attention": True}
    deep = {"depth": 6}
    study = make_study(tmp_path, {"a": {}, "b": cosine, "a6": deep, "b6": {**cosine, **deep}})
    table = tables.ladder(study).set_index("variant")
    assert dict(table["baseline"]) == {"a": "a", "b": "a", "a6": "a6", "b6": "a6"}
    with pytest.raises(NothingToShow):
        tables.modulation(study)


def test_no_variant_is_in_no_table(tmp_path: Path) -> None:
    study = make_study(
        tmp_path, {"a": {}, "odd": {"conditioning": "rotation", "cosine_attention": True}}
    )
    assert list(tables.ladder(study)["variant"]) == ["a"]
    assert list(tables.others(study)["variant"]) == ["a", "odd"]


def test_one_run_has_a_distance_and_no_interval(own: Own) -> None:
    path = own()
    (next(path.glob("A-none_s1*")) / "evaluation.jsonl").unlink()
    table = tables.ladder(load(path)).set_index("variant")
    assert (table.loc["A-none", "seeds"], table.loc["E-all", "seeds"]) == (1, 2)
    assert math.isnan(table.loc["E-all", "low"])
    text = tables.pretty(tables.ladder(load(path))).set_index("variant")
    assert text.loc["A-none", "FD-digits@1000 ↓"] == "40.00"
    assert text.loc["E-all", "change"] == "−22.5 %"


def test_a_variant_without_results_keeps_its_row(own: Own) -> None:
    path = own(seeds=1)
    run = RunDir(next(path.glob("C-weight*")))
    (run.path / "evaluation.jsonl").unlink()
    run.write_state(RunState(step=10, steps=1000))
    text = tables.pretty(tables.ladder(load(path))).set_index("variant")
    assert list(text.loc["C-weight-norm"][["FD-digits@1000 ↓", "seeds", "change"]]) == [
        *("–", "0", "–")
    ]


def test_nothing_evaluated_is_said(own: Own) -> None:
    path = own()
    for file in path.glob("*/evaluation.jsonl"):
        file.unlink()
    study = load(path)
    with pytest.raises(NothingToShow, match="no run has been evaluated yet"):
        tables.ladder(study)
    assert conclusions.statements(study) == ["No run has been evaluated yet."]


def test_only_inception_features_are_called_fid(own: Own) -> None:
    path = own()
    for file in path.glob("*/evaluation.jsonl"):
        file.write_text(file.read_text().replace("FD-digits@1000", "FID@1000"))
    assert distances.title(load(path)) == "FD-digits@1000"
    for file in path.glob("*/evaluation.jsonl"):
        file.write_text(file.read_text().replace('"digits", "weights"', '"inception", "weights"'))
    assert distances.title(load(path)) == "FID@1000"


def test_distances_that_may_not_stand_beside_each_other_are_called_out(own: Own) -> None:
    path = own()
    runs = [
        RunDir(next(path.glob(f"{name}_s0*"))) for name in ("A-none", "B-cosine", "C-weight-norm")
    ]
    for run in runs:
        (run.path / "evaluation.jsonl").unlink()
    synthetic.write_evaluation(runs[0], float("nan"), 0)
    synthetic.write_evaluation(runs[1], 30.0, 0, metric="FD-digits@500", count=500)
    synthetic.write_evaluation(runs[2], 30.0, 0, weights="w1")
    said = comparison.left_out(load(path))
    assert f"{runs[1].name} has FD-digits@500 but not FD-digits@1000: left out" in said
    assert f"{runs[0].name}: its FD-digits@1000 is NaN or infinite: failed" in said
    assert comparison.differing(load(path)) == {"weights": ["w0", "w1"]}
    assert len(comparison.distances(load(path))) == 12


def test_solvers_that_the_grid_crosses_may_stand_beside_each_other(own: Own) -> None:
    path = own()
    table = json.loads((path / "study.json").read_text())
    for number, row in enumerate(table["runs"]):
        (path / row["name"] / "evaluation.jsonl").unlink()
        sampling = {"sampler": ("ddim", "heun")[number % 2], "steps": 50}
        synthetic.write_evaluation(RunDir(path / row["name"]), 3.0, number, sampling=sampling)
        row["axes"] = {"sample.solver": sampling["sampler"]}
    assert comparison.differing(load(path)) == {"sampling.sampler": ["ddim", "heun"]}
    (path / "study.json").write_text(json.dumps(table))
    assert comparison.differing(load(path)) == {}


def test_a_tuned_axis_shows_each_variant_at_its_own_best(tmp_path: Path) -> None:
    entries = []
    found = {("a", 1e-3): (9.0, 11.0), ("a", 1e-2): (20.0, 22.0), ("b", 1e-3): (12.0, 14.0)}
    found[("b", 1e-2)] = (7.0, 9.0)
    for (variant, rate), values in found.items():
        for seed, distance in enumerate(values):
            flags = {"cosine_attention": variant == "b"}
            run = synthetic.config(flags, seed, learning_rate=rate)
            folder = RunDir(tmp_path / f"{variant}_s{seed}-{run.id}")
            synthetic.write_run(folder, run, distance)
            tune = {"tune": {"train.learning_rate": rate}}
            entries.append(synthetic.entry(folder, run, variant) | tune)
    study = load(synthetic.write_listing(tmp_path, entries))
    table = tables.ladder(study)
    assert list(table["mean"]) == [10, 8]
    assert list(table["tuned"]) == ["train.learning_rate 0.001", "train.learning_rate 0.01"]
    assert len(comparison.chosen(study)) == 4


def test_differences_between_runs_are_named(own: Own) -> None:
    path = own()
    file = next(path.glob("A-none_s0*")) / "provenance.json"
    file.write_text(file.read_text().replace("abc1234", "def5678").replace("2.9.0", "2.8.0"))
    found = origins.differences(load(path))
    assert {(row.what, row.value): len(row.runs) for row in found.itertuples()} == {
        ("code", "abc1234"): 13,
        ("code", "def5678"): 1,
        ("packages.torch", "2.8.0"): 1,
        ("packages.torch", "2.9.0"): 13,
    }


def test_pretty_tables_read_as_in_print(study: Study) -> None:
    text = tables.pretty(tables.ladder(study)).set_index("variant")
    assert list(text.loc["E-all"]) == [
        *("31.00 ± 12.71", "2", "−26.1 % [−42.3, −5.4]", "0.019", "undecided", "500"),
        "3 min 20 s",
    ]
    assert list(text.loc["A-none"])[2:5] == ["baseline", "–", "–"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((41.4, "41 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (3599.8, "1 h 0 min")),
        *((18720, "5 h 12 min"), (None, "–"), (float("nan"), "–")),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert cells.elapsed(seconds) == text


def test_writers_escape_names_and_keep_every_digit(study: Study, tmp_path: Path) -> None:
    table = tables.ladder(study)
    table["variant"] = table["variant"].str.replace("A-none", "A|50%_$x$&#{}~^\\")
    tables.save(table, tables.pretty(table), tmp_path / "ladder.v1")
    markdown = (tmp_path / "ladder.v1.md").read_text()
    assert "A\\|50%" in markdown
    assert {line.replace("\\|", "").count("|") for line in markdown.splitlines()} == {9}
    latex = (tmp_path / "ladder.v1.tex").read_text()
    assert (
        r"A\textbar{}50\%\_\$x\$\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
        in latex
    )
    assert r"31.00 $\pm$ 12.71 & 2 & $-$26.1 \% [$-$42.3, $-$5.4]" in latex
    assert r"FD-digits@1000 $\downarrow$" in latex
    assert latex.isascii()
    assert {line.count(" & ") for line in latex.splitlines() if line.endswith(r"\\")} == {7}
    with (tmp_path / "ladder.v1.csv").open() as file:
        written = [float(row["half_width"]) for row in csv.DictReader(file)]
    assert written == list(table["half_width"])
