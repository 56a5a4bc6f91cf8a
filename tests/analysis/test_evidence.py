"""What a ladder's steps add, what factors do, what the seeds allow to conclude, and its origin."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from analysis import NothingToShow, Study, figures, tables
from analysis.judging import conclusions, effects
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
    assert list(table["adds"]) == [*PAPERS_FLAGS[:3], ", ".join(PAPERS_FLAGS[3:])]
    # by hand from synthetic.DISTANCES
    assert list(table["difference"]) == pytest.approx([-0.8, -4.2, 0.25, -6.25])
    assert table["difference"].sum() == pytest.approx(31 - 42)
    b, c = synthetic.DISTANCES["B-cosine"], synthetic.DISTANCES["C-weight-norm"]
    p = stats.ttest_rel(c, b).pvalue
    assert table.loc["C-weight-norm", "p"] == pytest.approx(p)
    assert table["p_holm"].min() == pytest.approx(4 * table["p"].min())
    text = printed("contributions", study).set_index("step")
    assert text.loc["C-weight-norm", "adds"] == "weight_normalization"
    assert text.loc["B-cosine", "Δ, %"].startswith("−1.9 [")


def test_variants_that_do_not_build_on_each_other_have_no_contributions(tmp_path: Path) -> None:
    entries = []
    for order, flag in enumerate((None, "mp_silu", "mp_residual")):
        run = synthetic.config({flag: True} if flag else {}, 0)
        folder = RunDir(tmp_path / f"v{order}_s0-{run.id}")
        synthetic.write_run(folder, run, 10.0 + order)
        entries.append(synthetic.entry(folder, run, f"v{order}"))
    with pytest.raises(NothingToShow, match="step by step"):
        tables.contributions(load(synthetic.write_listing(tmp_path, entries)))


def test_evidence_has_the_power_of_the_seeds(study: Study) -> None:
    table = tables.evidence(study).set_index("variant")
    assert list(table.index) == list(synthetic.VARIANTS)[1:]
    last = table.loc["E-all"]
    assert (last["baseline"], last["difference"], last["pairs"]) == ("A-none", -11, 2)
    assert last["sd"] == pytest.approx(2**0.5)  # of −10 and −12
    assert (last["improvement"], last["improvement_high"]) == (1, 1)
    assert last["improvement_low"] == pytest.approx(0.386, abs=1e-3)
    assert last["seeds_needed"] == 3
    # with two seeds only what is 11.55 standard deviations large is found four times in five
    assert last["detectable"] == pytest.approx(11.55 * 2**0.5, rel=1e-3)
    text = printed("evidence", study).set_index("variant")
    assert text.loc["E-all", "P(better)"] == "1.00 [0.39, 1.00]"
    assert text.loc["E-all_rotation", "against"] == "E-all"


def test_one_seed_is_no_evidence(own: Own) -> None:
    table = tables.evidence(load(own(seeds=1)))
    assert table[["low", "p", "sd", "detectable", "seeds_needed"]].isna().all(axis=None)
    assert (table["pairs"] == 1).all()


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_factorial(tmp_path_factory.mktemp("crossed")))


def test_the_tables_of_effects_are_the_fits(crossed: Study) -> None:
    main, both = tables.main_effects(crossed), tables.interactions(crossed)
    for table, order in ((main, 1), (both, 2)):
        assert len(table)
        for row in table.to_dict("records"):
            assert row["low"] < row["difference"] < row["high"]
            assert row["effect"].count("×") == order - 1
            assert row["p_holm"] >= row["p"]
            assert "axis." not in row["effect"]
    found = printed("main_effects", crossed)
    assert found.columns[1] == "Δ FD-digits@1000"
    assert (found["runs"] == str(len(crossed.runs))).all()


def test_of_many_comparisons_the_factors_are_what_is_said(
    crossed: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(conclusions.statements(crossed)) == 1 + 2 * 4
    monkeypatch.setattr(conclusions, "MANY", 3)
    said = conclusions.statements(crossed)
    # −4, and half of the −3 that cosine attention and mp_silu do together
    assert said[0].startswith("cosine_attention has FD-digits@1000 lower by 5.4")
    assert said[0].endswith("], over all settings of the other factors.")
    assert said[1].startswith("conditioning rotation has FD-digits@1000 higher by ")
    assert said[-1] == (
        "After Holm's correction 4 of 4 main effects and 1 of 5 interactions of two factors "
        "differ from zero (36 runs)."
    )


def test_of_many_comparisons_that_cross_nothing_the_first_are_said(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusions, "MANY", 1)
    said = conclusions.statements(study)
    assert len(said) == 2
    assert said[1] == (
        "Of 2 further comparisons, in the tables, none are conclusive after Holm's correction."
    )


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
    assert list(table["effect"]) == ["train.ema_stds 0.03, 0.1", "train.clip_norm 1"]
    assert list(table["difference"]) == pytest.approx([4, 1])


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
    assert cells.probability(0.0004) == "< 0.001"
    assert cells.probability(0.0123) == "0.012"


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
