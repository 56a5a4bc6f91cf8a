"""What a ladder's steps add, what factors do, what the seeds allow to conclude, and its origin."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from analysis import NothingToShow, Study, figures, tables
from analysis.judging import conclusions, effects, numerals, plans
from analysis.judging.speed import side_by_side
from analysis.loading.load import load
from analysis.tables import cells
from mpdit.catalogue import PAPERS_FLAGS
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

Own = Callable[..., Path]


def printed(name: str, study: Study) -> pd.DataFrame:
    kind = tables.TABLES[name]
    return kind.text(kind.make(study))


def test_a_steps_contribution_is_to_the_step_before_it(study: Study) -> None:
    table = tables.contributions(study).set_index("variant")
    assert list(table.index) == list(synthetic.LADDER)[1:]
    assert list(table["baseline"]) == list(synthetic.LADDER)[:-1]
    assert list(table["adds"]) == [
        *PAPERS_FLAGS[:3],
        f"{', '.join(PAPERS_FLAGS[3:])}, model.time_embedding table",
    ]
    # by hand from synthetic.DISTANCES: ratios of geometric means
    means = {v: stats.gmean(found) for v, found in synthetic.DISTANCES.items()}
    names = list(synthetic.LADDER)
    expected = [means[after] / means[before] for before, after in itertools.pairwise(names)]
    assert list(table["effect"]) == pytest.approx(expected)
    assert table["effect"].prod() == pytest.approx(means["E-all"] / means["A-none"])
    # the first step is one of the study's comparisons, and has the same interval there
    first, same = table.loc["B-cosine"], tables.ladder(study).set_index("variant").loc["B-cosine"]
    assert (first["low"], first["high"]) == (same["low"], same["high"])
    text = printed("contributions", study).set_index("step")
    assert text.loc["C-weight-norm", "adds"] == "weight_normalization"
    assert text.loc["B-cosine", text.columns[1]].startswith("−1.9 % [")


def test_variants_that_do_not_build_on_each_other_have_no_contributions(tmp_path: Path) -> None:
    entries = []
    for order, flag in enumerate((None, "mp_silu", "mp_residual")):
        run = synthetic.config({flag: True} if flag else {}, 0)
        folder = RunDir(tmp_path / f"v{order}_s0-{run.id}")
        synthetic.write_run(folder, run, 10.0 + order)
        entries.append(synthetic.entry(folder, run, f"v{order}"))
    with pytest.raises(NothingToShow, match="step by step"):
        tables.contributions(load(synthetic.write_listing(tmp_path, entries)))


def test_a_step_names_all_that_it_changes(tmp_path: Path) -> None:
    entries = []
    steps: dict[str, tuple[dict[str, object], float]] = {
        "a": ({}, 1e-3),
        "b": ({"cosine_attention": True}, 3e-3),
        "c": ({"cosine_attention": True, "mp_silu": True}, 3e-3),
    }
    for order, (variant, (model, rate)) in enumerate(steps.items()):
        run = synthetic.config(model, 0, learning_rate=rate)
        folder = RunDir(tmp_path / f"{variant}_s0-{run.id}")
        synthetic.write_run(folder, run, 10.0 + order)
        entries.append(synthetic.entry(folder, run, variant))
    table = tables.contributions(load(synthetic.write_listing(tmp_path, entries)))
    assert list(table["adds"]) == [
        "cosine_attention, train.learning_rate 0.003, train.mp_learning_rate 0.003, "
        "train.gain_learning_rate 0.003",
        "mp_silu",
    ]


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_factorial(tmp_path_factory.mktemp("crossed")))


def test_the_tables_of_effects_are_the_fits(crossed: Study) -> None:
    main, both = tables.main_effects(crossed), tables.interactions(crossed)
    for table, order in ((main, 1), (both, 2)):
        assert len(table)
        for row in table.to_dict("records"):
            assert row["low"] < row["effect"] < row["high"]
            assert row["name"].count("×") == order - 1
            assert (row["p"] < 0.05) == (row["low"] > 1 or row["high"] < 1)
            assert "axis." not in row["name"]
    found = printed("main_effects", crossed)
    assert found.columns[1] == "change of FD-digits@1000"
    assert (found["runs"] == str(len(crossed.runs))).all()


def test_a_crossed_grid_answers_what_its_factors_do(crossed: Study) -> None:
    said = conclusions.statements(crossed)
    assert len(said) == 4 + 5  # main effects, then interactions
    assert said[0].startswith("cosine_attention is better than no cosine_attention: FD-digits@1000")
    # +1 without cosine attention, −2 with it
    assert "depends on cosine_attention: +" in said[1]
    assert "at no cosine_attention, −" in said[1]
    assert said[2].startswith("conditioning rotation is worse than conditioning adaln: ")
    assert said[4].startswith("cosine_attention × mp_silu is better than no interaction: ")
    assert {row["verdict"] for row in plans.as_json(crossed)} >= {"better", "worse", "undecided"}


def test_of_many_comparisons_those_with_a_verdict_are_said_and_the_others_counted(
    study: Study, crossed: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusions, "MANY", 2)
    assert conclusions.statements(study) == ["None of 6 comparisons is decided."]
    better, worse, others = conclusions.statements(crossed)
    assert " is better than " in better
    assert " is worse than " in worse
    assert others.startswith("Of 7 further comparisons, in the tables: 1 undecided, 5 equivalent")


def test_levels_may_be_lists_or_nothing(tmp_path: Path) -> None:
    entries = []
    levels: list[tuple[object, object]] = [(a, b) for a in ([0.05], [0.03, 0.1]) for b in (None, 1)]
    for order, (stds, clip) in enumerate(levels):
        for seed in range(2):
            run = synthetic.config({}, seed, learning_rate=1e-3 * (order + 1))
            folder = RunDir(tmp_path / f"v{order}_s{seed}-{run.id}")
            synthetic.write_run(folder, run, 10 + 4 * (order // 2) + order % 2 + 0.01 * seed)
            axes = {"axes": {"train.ema_stds": stds, "train.clip_norm": clip}}
            entries.append(synthetic.entry(folder, run, f"v{order}") | axes)
    table = tables.main_effects(load(synthetic.write_listing(tmp_path, entries)))
    assert list(table["name"]) == ["train.ema_stds 0.03, 0.1", "train.clip_norm 1"]
    assert list(table["effect"]) == pytest.approx([(14 * 15 / 10 / 11) ** 0.5, 1.085], rel=1e-2)


def test_effects_need_two_crossed_axes(study: Study) -> None:
    for make in (tables.main_effects, tables.interactions):
        with pytest.raises(NothingToShow):
            make(study)
    assert effects.name(["mp_silu", "model.depth"], [True, 4]) == "mp_silu × model.depth 4"


def test_the_inventory_has_every_run_and_whence_it_is(own: Own) -> None:
    path = own()
    for file in (*path.glob("A-none_s0*/evaluation.jsonl"), *path.glob("B-cosine_s1*/prov*.json")):
        file.unlink()
    file = next(path.glob("E-all_s0*/provenance.json"))
    start, end = file.read_text().removesuffix("]}").split("[")
    later = end.replace("laptop", "node7").replace('"job": null', '"job": "4711"')
    later = later.replace("2025-01-01", "2025-01-02").replace('"diff_sha": null', '"diff_sha": "d"')
    file.write_text(f"{start}[{end}, {later}]}}")
    table = tables.inventory(load(path)).set_index("run")
    assert len(table) == 14
    resumed = table[table["starts"] == 2].iloc[0]
    assert resumed["host"] == "node7"
    assert resumed["began"] == "2025-01-01T00:00:00Z"
    assert (resumed["jobs"], resumed["distance"], resumed["code"]) == ("4711", 30, "abc1234")
    assert table["distance"].isna().sum() == 1
    assert list(table["starts"]).count(0) == 1
    text = printed("inventory", load(path)).set_index("run")
    assert list(text["code"]).count("abc1234+") == 1
    assert list(text["code"]).count("–") == 1


def test_the_inventory_of_a_study_that_has_just_begun(own: Own) -> None:
    path = own(seeds=1)
    for file in path.glob("*_s0-*/*"):
        if file.is_file() and file.name != "config.yaml":
            file.unlink()
    text = printed("inventory", load(path))
    assert set(text["state"]) == {"planned"}
    assert set(text["distance"]) == {"–"}


def test_the_tuning_curve_is_printed(tmp_path: Path) -> None:
    study = load(synthetic.write_tuned(tmp_path / "tuned"))
    text = printed("tuning", study)
    assert list(text["best"]) == ["–", "best", "–", "–", "–", "best"]
    assert list(text["chosen for"]) == [
        *("0 seeds", "3 seeds", "0 seeds"),
        *("0 seeds", "0 seeds", "3 seeds"),
    ]
    assert text["distance ↓"].iloc[1] == "20.00 ± 2.48"  # 19, 20, 21


def test_nan_is_a_dash_and_no_number() -> None:
    assert cells.number(math.nan, 2) == cells.DASH
    assert numerals.probability(0.0004) == "< 0.001"
    assert numerals.probability(0.0123) == "0.012"


def test_runs_that_trained_side_by_side_are_counted_where_times_are_shown(own: Own) -> None:
    path = own()
    for number, file in enumerate(sorted(path.glob("*/provenance.json"))):
        # two hours apart, which is longer than any trains; save two, of one start
        start = 2 * (number if file.parent.name[:10] != "B-cosine_s" else 20)
        time = f"2025-01-0{1 + start // 24}T{start % 24:02}:00"
        file.write_text(file.read_text().replace("2025-01-01T00:00", time))
    study = load(path)
    table = tables.overhead(study).set_index("variant")
    assert dict(table["shared"][table["shared"] > 0]) == {"B-cosine": 2}
    text = printed("overhead", study).set_index("variant")
    assert text.loc["B-cosine", "beside others"] == "2 of 2"
    assert text.loc["E-all", "beside others"] == "–"
    label = figures.speed(study).axes[0].get_xlabel()
    assert label.endswith("2 of 14 runs shared a host, which slows them")


def test_a_run_that_was_resumed_is_no_neighbour_of_itself(own: Own) -> None:
    path = own()
    for number, file in enumerate(sorted(path.glob("*/provenance.json"))):
        said = json.loads(file.read_text())
        (start,) = said["starts"]
        days = [1 + 2 * (number % 14), 2 + 2 * (number % 14)] if number else [1]
        said["starts"] = [{**start, "time": f"2025-01-{day:02}T00:00:00"} for day in days]
        file.write_text(json.dumps(said))
    assert side_by_side(load(path)) == set()
