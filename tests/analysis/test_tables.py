"""Tables against numbers computed by hand from synthetic.DISTANCES."""

import csv
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import NothingToShow, Study, tables
from analysis.judging import comparison, conclusions, distances, paired, statistics
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
    assert last["difference"] == -11  # −10 and −12
    assert (last["low"], last["high"]) == pytest.approx((-11 - T_1, -11 + T_1))
    assert last["relative"] == pytest.approx(31 / 42 - 1)
    assert (last["parameters"], last["relative_size"]) == (500, 0.25)
    assert last["train_seconds"] == 200
    assert math.isnan(table.loc["A-none", "difference"])


def test_modulations_are_found_by_their_configs_not_their_names(own: Own) -> None:
    study = load(own(E_all="zebra", E_all_rotation="apple"))
    table = tables.modulation(study)
    assert list(table["variant"]) == ["zebra", "apple", "E-all_rotation-scale"]
    assert set(table["baseline"]) == {"zebra"}
    assert list(table["difference"])[1:] == [2.5, 0.75]
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


def test_differences_use_only_the_seeds_that_both_have(own: Own) -> None:
    path = own()
    (next(path.glob("A-none_s1*")) / "evaluation.jsonl").unlink()
    table = tables.ladder(load(path)).set_index("variant")
    assert (table.loc["A-none", "seeds"], table.loc["E-all", "seeds"]) == (1, 2)
    assert (table.loc["E-all", "pairs"], table.loc["E-all", "difference"]) == (1, -10)
    assert math.isnan(table.loc["E-all", "low"])
    text = tables.pretty(tables.ladder(load(path))).set_index("variant")
    assert text.loc["A-none", "FD-digits@1000 ↓"] == "40.00"
    assert text.loc["E-all", "Δ to baseline"] == "−10.00"


def test_a_variant_without_results_keeps_its_row(own: Own) -> None:
    path = own(seeds=1)
    run = RunDir(next(path.glob("C-weight*")))
    (run.path / "evaluation.jsonl").unlink()
    run.write_state(RunState(step=10, steps=1000))
    text = tables.pretty(tables.ladder(load(path))).set_index("variant")
    assert list(text.loc["C-weight-norm"][["FD-digits@1000 ↓", "seeds", "Δ to baseline"]]) == [
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


def test_the_conclusion_names_its_interval_and_says_when_it_includes_zero(own: Own) -> None:
    clear = own()
    for seed, distance in ((0, 30.0), (1, 33.05)):  # about a quarter less than 40 and 44
        file = next(clear.glob(f"E-all_s{seed}*")) / "evaluation.jsonl"
        file.unlink()
        synthetic.write_evaluation(RunDir(file.parent), distance, seed)
    first, second, third = conclusions.statements(load(clear))
    assert first.startswith(
        "E-all has FD-digits@1000 lower by 10.5 [4.44, 16.5] than A-none (24.9 % ["
    )
    assert first.endswith(
        "]; 95 % intervals, 2 seeds): the interval excludes zero, but one of 6 comparisons may do "
        "so by chance (p = 0.17, Holm), so it is not conclusive."
    )
    assert "E-all_rotation has FD-digits@1000 higher by " in second
    assert second.endswith("the interval includes zero, so these seeds do not tell the two apart.")
    assert third.startswith("E-all_rotation-scale has")


def test_one_seed_concludes_nothing(own: Own) -> None:
    first = conclusions.statements(load(own(seeds=1)))[0]
    assert first == (
        "E-all has FD-digits@1000 lower by 10 than A-none (25.0 %; 1 seed): "
        "one seed gives no interval, so nothing can be concluded."
    )


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
    said = comparison.incomparable(load(path))
    assert f"{runs[1].name} has FD-digits@500 but not FD-digits@1000: left out" in said
    assert f"{runs[0].name}: its FD-digits@1000 is not a number: left out" in said
    assert any("differ in weights" in reason and "w1" in reason for reason in said)
    assert len(comparison.distances(load(path))) == 12


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
        *("31.00 ± 12.71", "2", "−11.00 [−23.71, +1.71]", "−26.2 [−35.2, +10.3]"),
        *("0.35", "500", "+25.00", "3 min 20 s"),
    ]
    assert list(text.loc["A-none"])[2:4] == ["baseline", "baseline"]


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
    assert {line.replace("\\|", "").count("|") for line in markdown.splitlines()} == {10}
    latex = (tmp_path / "ladder.v1.tex").read_text()
    assert (
        r"A\textbar{}50\%\_\$x\$\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
        in latex
    )
    assert r"31.00 $\pm$ 12.71 & 2 & $-$11.00 [$-$23.71, +1.71]" in latex
    assert r"FD-digits@1000 $\downarrow$" in latex
    assert latex.isascii()
    assert {line.count(" & ") for line in latex.splitlines() if line.endswith(r"\\")} == {8}
    with (tmp_path / "ladder.v1.csv").open() as file:
        written = [float(row["half_width"]) for row in csv.DictReader(file)]
    assert written == list(table["half_width"])


def test_a_clear_difference_is_not_denied_because_the_baseline_is_uncertain() -> None:
    rows = {"A-none": (5.93, 7.53), "E-all": (13.03, 15.65)}
    distances = pd.DataFrame(
        {"variant": name, "seed": seed, "value": value, "metric": "FD", "points": 1}
        for name, values in rows.items()
        for seed, value in enumerate(values)
    )
    [found] = paired.differences(distances, [("E-all", "A-none")])
    said = conclusions.statement("E-all", "A-none", "FD", found, 1)
    expected = "E-all has FD higher by 7.61 [1.13, 14.1] than A-none"
    assert said == f"{expected} (113.1 %; 95 % intervals, 2 seeds)."


def many_variants(path: Path, models: list[dict[str, Any]], gain: float) -> Study:
    """Three seeds of each; all are better than the first by ``gain``, and differ by noise."""
    noise = np.random.default_rng(0)
    entries = []
    for (order, model), seed in itertools.product(enumerate(models), range(3)):
        run = synthetic.config(model, seed)
        folder = RunDir(path / f"v{order}_s{seed}-{run.id}")
        folder.write_config(run)
        distance = 60 - gain * (order > 0) + noise.normal(0, 0.1)
        synthetic.write_evaluation(folder, distance, seed)
        entries.append(synthetic.entry(folder, run, f"v{order}"))
    return load(synthetic.write_listing(path, entries))


CONDITIONINGS = [
    {"conditioning": "+".join(parts)}
    for count in (1, 2)
    for parts in itertools.combinations(("scale", "shift", "rotation", "gate"), count)
]


def test_of_many_comparisons_none_is_called_conclusive_that_the_correction_is_not(
    tmp_path: Path,
) -> None:
    study = many_variants(tmp_path, CONDITIONINGS, gain=0)
    table = tables.modulation(study)
    assert table["low"].gt(0).sum() + table["high"].lt(0).sum() > 0  # by chance
    assert (table["p_holm"].dropna() > 0.05).all()
    assert list(table["p_holm"][1:]) == pytest.approx(list(statistics.holm(table["p"][1:])))
    assert "p, Holm" in tables.pretty(table)
    said = conclusions.statements(study)
    assert any("so it is not conclusive." in sentence for sentence in said)
    assert not any(sentence.endswith("seeds).") for sentence in said)


def test_of_many_conclusions_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusions, "MANY", 8)
    said = conclusions.statements(many_variants(tmp_path, CONDITIONINGS, gain=30))
    assert len(said) == 8 + 1
    assert all(sentence.endswith("3 seeds).") for sentence in said[:-1])
    assert said[-1] == (
        "Of 1 further comparison, in the tables, 1 is conclusive after Holm's correction."
    )


@pytest.mark.parametrize("name", ["FD-digits@1000", "KD-digits@1000"])
def test_what_cannot_be_negative_cannot_fall_by_more_than_all_of_it(own: Own, name: str) -> None:
    path = own()
    for file in path.glob("*/evaluation.jsonl"):
        file.write_text(file.read_text().replace("FD-digits@1000", name))
    for seed, distance in ((0, 1.0), (1, 20.0)):
        file = next(path.glob(f"E-all_s{seed}*")) / "evaluation.jsonl"
        file.unlink()
        synthetic.write_evaluation(RunDir(file.parent), distance, seed, metric=name)
    low = tables.ladder(load(path)).set_index("variant").loc["E-all", "relative_low"]
    assert math.isfinite(low)
    assert (low == -1) == name.startswith("FD")
