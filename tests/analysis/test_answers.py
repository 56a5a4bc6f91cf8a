"""One verdict a comparison: the same in every table, figure, sentence and command."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import NothingToShow, Study, figures, tables
from analysis.__main__ import main
from analysis.figures import panels
from analysis.judging import answers, conclusions, distances, numerals, plans, words
from analysis.loading import published
from analysis.loading.load import load
from mpdit.disk.rundir import RunDir, RunState
from mpdit.invocation import typed
from tests.helpers import synthetic

KEYS = (
    *("variant", "baseline", "verdict", "effect", "low", "high", "scale", "seeds", "failed", "p"),
    *("more_seeds", "cost"),
)
CLEAR = {"A-none": (40.0, 41.0, 39.5), "B-cosine": (20.0, 20.4, 19.7)}
VAGUE = {"A-none": (40.0, 41.0, 39.5), "B-cosine": (38.0, 40.4, 37.7)}
NAN = "the loss is nan at step 100; there is no checkpoint yet. A smaller learning rate may help"


def write(
    path: Path,
    values: Mapping[str, Sequence[float | None]],
    decisions: Mapping[str, object] | None = None,
    metric: str = "FD-digits@1000",
    **train: int,
) -> Path:
    """A study of these distances by variant of `synthetic.LADDER`; None of a run that diverged."""
    entries = []
    for order, (variant, found) in enumerate(values.items()):
        for seed, value in enumerate(found):
            run = synthetic.config(synthetic.VARIANTS[variant], seed, **train)
            folder = RunDir(path / f"{variant}_s{seed}-{run.id}")
            synthetic.write_run(folder, run, 0.0, order)
            (folder.path / "evaluation.jsonl").unlink()
            if value is None:
                folder.write_state(RunState(stage="train", step=100, steps=1000, error=NAN))
            else:
                synthetic.write_evaluation(folder, value, seed, metric=metric)
            entries.append(synthetic.entry(folder, run, variant))
    listing = {"study": path.name, "grid": "experiments/mine.yaml", "runs": entries}
    listing["decisions"] = {"metric": None, "margin": 0.05, "scale": "ratio"} | (decisions or {})
    (path / "study.json").write_text(json.dumps(listing))
    return path


def test_every_place_has_the_same_numbers(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    values = {
        variant: (20 * effect * np.exp(noise.normal(0, 0.05, 4))).tolist()
        for variant, effect in zip(synthetic.LADDER, (1, 1.03, 0.8, 0.7, 0.5), strict=True)
    }
    study = load(write(tmp_path / "s", values))
    found = answers.answers(study)
    assert len(found) == 4
    assert {answer.verdict for answer in found} >= {"better", "undecided"}
    table = tables.ladder(study).set_index("variant")
    rows = {row["variant"]: row for row in plans.as_json(study)}
    texts = [text.get_text() for text in figures.answers(study).axes[0].texts]
    for answer, text in zip(found, texts, strict=True):
        row = table.loc[answer.variant]
        for key in ("effect", "low", "high", "p", "verdict"):
            assert getattr(answer, key) == row[key] == rows[answer.variant][key]
        assert (answer.p < 0.05) == (answer.low > 1 or answer.high < 1)
        assert text == f"{answer.verdict}, n = 4"
        said = conclusions.statement(answer, distances.title(study))
        assert said in conclusions.statements(study)
        shown = numerals.change(answer.effect, answer.low, answer.high, "ratio")
        assert shown in said
        assert (
            tables.pretty(tables.ladder(study)).set_index("variant")["change"][answer.variant]
            == shown
        )


def test_the_command_prints_objects_of_these_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "s", VAGUE)
    assert main(["answers", str(path), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert tuple(row) == KEYS
    assert (row["verdict"], row["scale"], row["seeds"], row["failed"]) == (
        "undecided",
        "ratio",
        3,
        0,
    )
    assert row["more_seeds"] > 0
    # 40 s and 80 s of training and 3 s of evaluation, on one thread
    assert row["cost"] == pytest.approx(row["more_seeds"] * (40 + 80 + 2 * 3) / 3600)
    assert main(["answers", str(path)]) == 0
    assert "B-cosine against A-none: undecided" in capsys.readouterr().out
    assert main(["next", str(path)]) == 0
    said = capsys.readouterr().out
    seeds = 3 + row["more_seeds"]
    assert f"B-cosine against A-none: {row['more_seeds']} more seeds of each (about" in said
    assert f"submit experiments/mine.yaml --set seeds={seeds} --only B" in said
    decided = write(tmp_path / "decided", CLEAR)
    assert main(["next", str(decided)]) == 0
    assert capsys.readouterr().out == "Every comparison is settled.\n"


def test_before_the_first_evaluation_there_is_no_answer(
    own: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = own(seeds=1)
    for file in path.glob("*/evaluation.jsonl"):
        file.unlink()
    assert main(["answers", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["next", str(path)]) == 2
    assert "no run has been evaluated" in capsys.readouterr().err


def test_the_declared_margin_and_looks_are_kept_by_a_summary(tmp_path: Path) -> None:
    close = {"A-none": (40.0, 40.1, 39.9), "B-cosine": (41.0, 41.1, 40.9)}
    path = write(tmp_path / "s", close, {"margin": 0.1, "looks": [3, 5]})
    study = load(path)
    again = load(published.write(study, tmp_path / "summary"))
    for found in (study, again):
        assert distances.rules(found).looks == (3, 5)
        assert [answer.verdict for answer in answers.answers(found)] == ["equivalent"]
        assert plans.as_json(found) == plans.as_json(study)
    strict = load(write(tmp_path / "strict", close, {"margin": 0.01}))
    assert [answer.verdict for answer in answers.answers(strict)] == ["worse"]


def test_decided_comparisons_are_said_before_open_ones(tmp_path: Path) -> None:
    values = {**VAGUE, "C-weight-norm": CLEAR["B-cosine"]}
    study = load(write(tmp_path / "s", values))
    verdicts = [answer.verdict for answer in answers.answers(study)]
    assert verdicts[0] == "undecided" != verdicts[-1]
    said = conclusions.statements(study)
    assert "undecided" not in said[0]
    assert "undecided" in said[-1]


def test_runs_that_diverged_are_counted_and_said_first(tmp_path: Path) -> None:
    lost = {**CLEAR, "B-cosine": (*CLEAR["B-cosine"], None, None)}
    lost["A-none"] = (*CLEAR["A-none"], 40.2, 40.1)
    study = load(write(tmp_path / "s", lost))
    [answer] = answers.answers(study)
    assert (answer.verdict, answer.seeds, answer.failed) == ("undecided", 3, 2)
    said = conclusions.statements(study)
    assert said[0] == "B-cosine: 2 of 5 runs failed."
    assert "2 of 5 runs of the variant and 0 of 5 of the baseline failed" in said[1]


def test_one_finite_run_that_diverged_does_not_decide_the_mean(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    a, b = (noise.normal(mean, 0.5, 5).tolist() for mean in (20, 17))
    [clean] = answers.answers(load(write(tmp_path / "clean", {"A-none": a, "B-cosine": b})))
    study = load(write(tmp_path / "s", {"A-none": [*a, 400.0], "B-cosine": b}))
    [answer] = answers.answers(study)
    assert answer.effect == pytest.approx(clean.effect)
    assert (answer.verdict, answer.failed) == ("better", 1)
    assert conclusions.statements(study)[0].startswith("A-none: 1 of 6 runs failed (seed 5: more")


def test_a_runs_value_is_the_mean_of_its_sample_sets(tmp_path: Path) -> None:
    path = write(tmp_path / "s", CLEAR)
    run = RunDir(next(path.glob("B-cosine_s0*")))
    for seed, value in ((100, 26.0), (101, 29.0)):
        synthetic.write_evaluation(run, value, seed, role="repeat")
    assert answers.outcomes(load(path))["B-cosine"][0] == pytest.approx(25.0)


def test_joined_studies_with_other_configs_are_not_compared_with_each_other(
    tmp_path: Path,
) -> None:
    m1 = write(tmp_path / "m1", CLEAR)
    m2 = write(tmp_path / "m2", CLEAR, batch_size=128)
    study = load([m1, m2])
    pairs = [(answer.variant, answer.baseline) for answer in answers.answers(study)]
    assert pairs == [("m1/B-cosine", "m1/A-none"), ("m2/B-cosine", "m2/A-none")]
    assert conclusions.statements(study)[0].startswith("The 2 studies share no variant")
    assert not any(step.command for step in plans.steps(study))  # no grid has both variants
    more = write(tmp_path / "m3", {"A-none": (40.0, 41.0), "C-weight-norm": (30.0, 30.1)})
    pairs = [(answer.variant, answer.baseline) for answer in answers.answers(load([m1, more]))]
    assert pairs == [("B-cosine", "A-none"), ("C-weight-norm", "A-none")]


def test_a_study_is_judged_by_the_metric_that_it_declares(tmp_path: Path) -> None:
    higher = {"A-none": (0.40, 0.41, 0.40), "B-cosine": (0.60, 0.61, 0.60)}
    path = write(tmp_path / "only", higher, metric="recall-digits@1000")
    [answer] = answers.answers(load(path))
    assert (answer.verdict, answer.scale) == ("better", "difference")
    assert answer.effect == pytest.approx(0.2)
    assert "(right is better)" in figures.answers(load(path)).axes[0].get_xlabel()
    both = write(
        tmp_path / "both", CLEAR, {"metric": "recall", "margin": 0.3, "scale": "difference"}
    )
    for run in map(RunDir, both.glob("*_s*")):
        value = 0.4 if run.name.startswith("A") else 0.6
        synthetic.write_evaluation(run, value + 0.001 * int(run.name[-14]), 0,
                                   metric="recall-digits@1000", better="higher")  # fmt: skip
    [answer] = answers.answers(load(both))
    assert answer.verdict == "equivalent"  # 0.2 is within the margin
    assert "recall" in conclusions.statements(load(both))[0]


def test_kernel_distances_are_differences_with_digits_enough(tmp_path: Path) -> None:
    small = {"A-none": (-0.0001, 0.0002, 0.0001), "B-cosine": (0.0013, 0.0014, 0.0013)}
    study = load(write(tmp_path / "s", small, metric="KD-digits@1000"))
    [answer] = answers.answers(study)
    assert (answer.scale, answer.verdict) == ("difference", "worse")
    assert answer.low < answer.effect < answer.high
    text = tables.pretty(tables.ladder(study)).set_index("variant")
    assert text.loc["B-cosine", "KD-digits@1000 ↓"].startswith("0.0013333 ± 0.000")
    assert text.loc["B-cosine", "change"].startswith("+0.001")
    low, _ = figures.distance(study).axes[0].get_xlim()
    assert low < -0.0001


def test_limits_below_zero_count_and_fewer_seeds_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "s", CLEAR)
    limits = {"A-none": (1.0, -0.5, 0.7), "B-cosine": (2.0,)}
    for variant, values in limits.items():
        for seed, value in enumerate(values):
            run = RunDir(next(path.glob(f"{variant}_s{seed}*")))
            row = {"role": "limit", "metric": "FD-digits@inf", "standard_error": 0.1}
            synthetic.write_evaluation(run, value, seed, **row)
    table = tables.ladder(load(path))
    assert list(table["limit"]) == pytest.approx([0.4, 2.0])
    assert table["limit_half"].iloc[1] == pytest.approx(0.1 * 3.182446)  # t, three degrees
    text = tables.pretty(table)
    assert text["N → ∞"].iloc[1].endswith("(n = 1)")
    assert "(n" not in text["N → ∞"].iloc[0]


def test_probabilities_show_their_side_of_five_percent() -> None:
    assert [numerals.probability(p) for p in (0.0496, 0.0504, 0.05, 0.2, 0.0004)] == [
        *("0.0496", "0.05", "0.05", "0.2", "< 0.001")
    ]
    assert numerals.probability(math.nan) == "–"


def test_changes_are_percent_times_or_a_number_with_digits_enough() -> None:
    assert numerals.change(0.738, 0.6, 0.92, "ratio") == "−26.2 % [−40.0, −8.0]"
    assert numerals.change(3.1, 1.2, 8, "ratio") == "×3.1 [×1.2, ×8]"
    assert numerals.change(-0.042, -0.06, -0.024, "difference") == "−0.0420 [−0.0600, −0.0240]"
    assert numerals.change(0.9, math.nan, math.nan, "ratio") == "−10.0 %"


def test_ticks_of_large_numbers_are_numbers() -> None:
    said = [panels.short_number(x, 0) for x in (100, 250, 1000, 2, 0.05, -0.001, 3e-5)]
    assert said == ["100", "250", "1,000", "2", "0.05", "-0.001", "3·10⁻⁵"]


def test_the_comparing_table_fits_a_page(study: Study) -> None:
    assert len(tables.pretty(tables.ladder(study)).columns) <= 9


def test_the_report_leads_with_the_answers_and_what_would_decide_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.report import page

    kept = {name: figures.FIGURES[name] for name in ("answers", "distance")}
    monkeypatch.setattr(page, "FIGURES", kept)
    html = page.write(load(write(tmp_path / "s", VAGUE))).read_text()
    places = [
        html.index(part)
        for part in ('<section id="answers"', "B-cosine against A-none: undecided", "more seeds of")
    ]
    assert places == sorted(places)
    assert places[-1] < html.index("<table")
    assert html.index('<section id="distance"') < html.index("<table")


def test_after_the_last_look_no_command_is_named_that_would_add_nothing(tmp_path: Path) -> None:
    close = {"A-none": (40.0, 50.0, 60.0), "B-cosine": (45.0, 48.0, 62.0)}
    over, open_still = (
        load(write(tmp_path / str(looks[-1]), close, {"looks": looks})) for looks in ([3], [3, 5])
    )
    (answer,) = answers.answers(over)
    (step,) = plans.steps(over)
    assert step.command == ""
    assert f"seeds: {{looks: [{3 + (answer.more_seeds or 0)}], from: 3}}" in step.text
    (step,) = plans.steps(open_still)
    assert " submit " in step.command


def test_seeds_beyond_the_last_look_are_not_promised_by_submit(tmp_path: Path) -> None:
    close = {"A-none": (40.0, 50.0, 60.0), "B-cosine": (45.0, 48.0, 62.0)}
    for last, is_beyond in ((5, True), (9_999, False)):
        study = load(write(tmp_path / str(last), close, {"looks": [3, last]}))
        [answer] = answers.answers(study)
        assert answer.more_seeds is not None
        assert (3 + answer.more_seeds > last) == is_beyond
        [said] = map(str, plans.steps(study))
        assert (f"but the looks end at {last} seeds" in said) == is_beyond
        assert said.endswith(typed("submit", "experiments/mine.yaml"))


def test_another_seed_takes_the_place_of_a_failed_one(tmp_path: Path) -> None:
    vague = {"A-none": (40.0, 41.0, 39.5, None), "B-cosine": (38.0, 40.4, 37.7, None)}
    study = load(write(tmp_path / "s", vague))
    [answer] = answers.answers(study)
    assert (answer.seeds, answer.failed) == (3, 2)
    assert answer.more_seeds is not None
    (step,) = plans.steps(study)
    assert f"--set seeds={4 + answer.more_seeds} " in step.command


def test_runs_that_wait_for_the_next_look_are_told(tmp_path: Path) -> None:
    values = {"A-none": (40.0, 50.0, 60.0), "B-cosine": (45.0, 48.0, 62.0)}
    study = load(write(tmp_path / "at", values, {"looks": [3, 5]}))
    assert not answers.look_words(study)
    values["A-none"] += (20.0,)  # moves the mean in the tables, and not the verdict
    study = load(write(tmp_path / "after", values, {"looks": [3, 5]}))
    said = conclusions.statements(study)
    assert said[0] == answers.look_words(study)
    assert "from the look at 3 seeds. Later seeds are used at the look at 5 seeds" in said[0]
    assert [answer.seeds for answer in answers.answers(study)] == [3]


def crossed(path: Path, **decisions: object) -> Path:
    """`synthetic.write_factorial` with what its grid declares."""
    file = synthetic.write_factorial(path) / "study.json"
    declared = {"metric": None, "margin": 0.05, "scale": "ratio"} | decisions
    file.write_text(json.dumps(json.loads(file.read_text()) | {"decisions": declared}))
    return path


def test_a_fraction_of_which_a_part_has_run_compares_no_single_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = crossed(tmp_path / "s", fraction="two-way")
    for run in path.glob("v*_s*"):
        if run.name.partition("_")[0] not in ("v0", "v4"):  # which differ in two factors
            shutil.rmtree(run)
    study = load(path)
    assert answers.is_crossed(study)
    with pytest.raises(NothingToShow):
        answers.answers(study)
    assert main([str(path)]) == 0
    assert "cannot be told from other effects" in capsys.readouterr().out


def test_a_crossed_grid_answers_with_main_effects_and_interactions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = crossed(tmp_path / "s")
    assert main(["answers", str(path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(tuple(row) == KEYS for row in rows)
    verdicts = {(row["variant"], row["baseline"]): row["verdict"] for row in rows}
    assert verdicts == {
        ("cosine_attention", "no cosine_attention"): "better",
        ("mp_silu", "no mp_silu"): "undecided",  # worse without cosine attention, better with it
        ("conditioning rotation", "conditioning adaln"): "worse",
        ("conditioning rotation_scale", "conditioning adaln"): "equivalent",
        ("cosine_attention × mp_silu", "no interaction"): "better",
        **{
            (f"{flag} × conditioning {mode}", "no interaction"): "equivalent"
            for flag in ("cosine_attention", "mp_silu")
            for mode in ("rotation", "rotation_scale")
        },
    }
    study = load(path)
    shown = pd.concat([tables.main_effects(study), tables.interactions(study)])
    for key in ("effect", "low", "high", "p"):
        assert shown[key].tolist() == [row[key] for row in rows]
    said = conclusions.statements(study)
    assert any(line.startswith("cosine_attention × mp_silu is better than no int") for line in said)
    assert "depends on cosine_attention" in next(x for x in said if x.startswith("mp_silu against"))


def test_an_effect_whose_side_lost_more_runs_gets_no_good_verdict(tmp_path: Path) -> None:
    path = crossed(tmp_path / "s")
    lost = [
        run
        for run in map(RunDir, path.glob("*_s0-*"))
        if "cosine_attention: true" in (run.path / "config.yaml").read_text()
    ]
    for run in lost:
        (run.path / "evaluation.jsonl").unlink()
        run.write_state(RunState(stage="train", step=100, steps=1000, error=NAN))
    found = {answer.variant: answer for answer in answers.answers(load(path))}
    assert found["cosine_attention"].verdict == "undecided"
    assert "6 of 18 runs failed against 0 of 18" in found["cosine_attention"].reason
    assert {answer.failed for answer in found.values()} == {6}
    # as many have failed with rotation as with adaln, and as many together as apart
    assert found["conditioning rotation"].verdict == "worse"
    assert found["cosine_attention × mp_silu"].verdict == "better"


def test_levels_are_compared_with_the_first_of_the_grid_and_not_of_a_fraction(
    tmp_path: Path,
) -> None:
    levels = {"model.conditioning": ["rotation", "adaln", "rotation_scale"]}
    path = crossed(tmp_path / "s", fraction="two-way", levels=levels)
    found = {answer.variant: answer for answer in answers.answers(load(path))}
    assert found["conditioning adaln"].baseline == "conditioning rotation"
    assert found["conditioning adaln"].verdict == "better"


def test_a_study_with_looks_decides_between_its_variants(tmp_path: Path) -> None:
    study = load(crossed(tmp_path / "s", looks=[3]))
    assert {answer.baseline for answer in answers.answers(study)} <= set(study.variants)


def test_two_seeds_give_a_picture_and_no_verdict(tmp_path: Path) -> None:
    two = {variant: found[:2] for variant, found in CLEAR.items()}
    study = load(write(tmp_path / "s", two))
    [answer] = answers.answers(study)
    assert (answer.verdict, answer.seeds) == ("undecided", 2)
    assert answer.high < 1
    assert "fewer than 3 seeds" in answer.reason
    assert answer.more_seeds == 1
    # the rules by which runs fail and verdicts are reached are said
    said = words.explanation(study)
    assert "Fewer than 3 seeds give no verdict" in said
    assert "worse than its variant's median by more than 10 robust standard deviations" in said


def test_the_command_repeats_what_was_set(tmp_path: Path) -> None:
    path = write(tmp_path / "s", VAGUE)
    file = path / "study.json"
    sets = ["train.steps=150", "seeds=3", "description=a b"]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"set": sets}))
    study = load(path)
    [step] = plans.steps(study)
    said = step.command
    assert "mine.yaml --set train.steps=150 --set 'description=a b' --set seeds=" in said
    assert "seeds=3" not in said
    assert load(published.write(study, tmp_path / "summary")).sets == tuple(sets)


def test_what_waits_for_the_first_look_is_told_once_with_the_command(tmp_path: Path) -> None:
    one = dict.fromkeys(("A-none", "B-cosine", "C-weight-norm"), (40.0,))
    study = load(write(tmp_path / "s", one, {"looks": [3, 5]}))
    [said] = map(str, plans.steps(study))
    assert said == (
        "B-cosine against A-none, C-weight-norm against A-none: preliminary: the first look is at "
        f"3 seeds; to continue: {typed('submit', 'experiments/mine.yaml')}"
    )
