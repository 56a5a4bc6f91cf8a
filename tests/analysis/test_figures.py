"""What the figures draw: their data and labels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import NothingToShow, Study, figures
from analysis.figures import distance_plots, magnitude_plots, panels, style
from analysis.loading.load import load
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

Own = Callable[..., Path]
VARIANTS = list(synthetic.VARIANTS)
COLORS = {variant: look.color for variant, look in style.looks(VARIANTS).items()}
CROSSED = ("main_effects", "interactions")
LONG = {
    "A_none": "everything-off_baseline-of-all_with-a-name-that-does-not-end",
    "E_all_rotation_scale": "all$eight$flags_rotation_{and}_scale%final\\adaln",
    "B_cosine": "x" * 60,
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """With sweeps, and all that the probe says."""
    path = synthetic.write_study(tmp_path_factory.mktemp("measured") / "quickstart")
    measure(path)
    return load(path)


def measure(path: Path) -> None:
    entries = json.loads((path / "study.json").read_text())["runs"]
    found = zip(VARIANTS, synthetic.DISTANCES.values(), strict=True)
    distances = dict(enumerate(found))
    seeds = len(entries) // len(VARIANTS)
    for number, entry in enumerate(entries):
        order, seed = number // seeds, entry["seed"]
        run = RunDir(path / entry["name"])
        synthetic.write_learning(run, order)
        synthetic.write_sweep(run, distances[order][1][seed], seed)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_no_label_is_cut_off_however_long_the_names(own: Own, tmp_path: Path, name: str) -> None:
    if name == "tuning_curve":
        path = synthetic.write_tuned(tmp_path / "tuned", **LONG)
    elif name in CROSSED:
        path = synthetic.write_factorial(tmp_path / "crossed", seeds=2)
    else:
        path = own(**LONG)
        measure(path)
    figure = figures.FIGURES[name](load(path))
    assert figure.get_size_inches()[0] == style.COLUMN
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    slack = 0.03
    assert box.x0 >= -slack
    assert box.y0 >= -slack
    assert box.x1 <= width + slack
    assert box.y1 <= height + slack


def test_names_of_many_lines_cover_no_panel(own: Own) -> None:
    names = {name.replace("-", "_"): "norm-layer_qk-none_" * 8 + name for name in VARIANTS}
    figure = figures.magnitude_training(load(own(**names)))
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    assert not any(title.overlaps(box) for title in titles for box in boxes)


def test_distance_shows_every_seed_the_mean_the_interval_and_n(study: Study) -> None:
    axes = figures.distance(study).axes[0]
    assert axes.get_xlabel() == "FD-digits@1000 (smaller is better)"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *VARIANTS[:-1],
        "E-all_rotation-\nscale",
    ]
    points = [collection.get_offsets() for collection in axes.collections]
    assert [sorted(np.asarray(p)[:, 0]) for p in points] == [
        sorted(synthetic.DISTANCES[variant]) for variant in VARIANTS
    ]
    found = [to_hex(collection.get_facecolor()[0]) for collection in axes.collections]
    assert found == list(COLORS.values())
    assert [text.get_text() for text in axes.texts] == ["n = 2"] * 7
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"]
    assert means == [np.mean(synthetic.DISTANCES[variant]) for variant in VARIANTS]
    forced = next(line for line in axes.lines if list(line.get_ydata()) == [3, 3])
    assert list(forced.get_xdata()) == pytest.approx([37.25 - 3.1766, 37.25 + 3.1766], abs=1e-4)
    arrows = [(line.get_marker(), line.get_ydata()[0]) for line in axes.lines]
    assert {("<", 1), (">", 1), (">", 0)} <= {*arrows}  # 41.2 ± 28.0 leaves the axis on both sides
    assert axes.get_xlim()[0] < 42 - 25.4  # no further from the points than they are apart
    assert {("<", 0), ("<", 3)}.isdisjoint(arrows)


def test_values_close_together_have_ticks_that_differ(own: Own) -> None:
    path = own()
    for file in path.glob("*/magnitudes.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["blocks"] = [0.144 + 1e-6 * row["step"] for _ in row["blocks"]]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure = figures.magnitudes(load(path))
    figure.draw_without_rendering()
    for axes in figure.axes:
        ticks = [label.get_text() for label in axes.get_yticklabels() if label.get_text()]
        assert len({*ticks}) == len(ticks) > 2


def test_distance_keeps_the_row_of_a_variant_without_results(own: Own) -> None:
    path = own(seeds=1)
    (next(path.glob("C-weight-norm*")) / "evaluation.jsonl").unlink()
    axes = figures.distance(load(path)).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["n = 1", "n = 1", "no result", *["n = 1"] * 4]
    assert len(axes.get_yticklabels()) == 7


def test_magnitude_over_depth_has_a_row_a_site_and_a_column_a_step(measured: Study) -> None:
    figure = figures.magnitude_depth(measured)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["step 0", "step 100", "step 1,000"]
    labels = [axes.get_ylabel().replace("\n", " ") for axes in figure.axes[::3]]
    assert labels == list(magnitude_plots.SITES.values())
    start, early, end = figure.axes[:3]
    assert end.get_yscale() == "log"
    for axes, growth in ((early, 1.32), (end, 4.2)):
        line = line_of(axes, "A-none")
        assert list(line.get_xdata()) == [1, 2, 3, 4]
        expected = [growth ** (block / 2) for block in (1, 2, 3, 4)]
        assert list(line.get_ydata()) == pytest.approx(expected)
        assert list(line_of(axes, "E-all").get_ydata()) == [1, 1, 1, 1]
    assert list(line_of(start, "A-none").get_ydata()) == [0.7] * 4
    assert [len(axes.lines) for axes in figure.axes[3::3]] == [0] * 3  # only the residual at first
    assert [text.get_text() for text in figure.legends[0].get_texts()] == VARIANTS


def line_of(axes: Axes, variant: str) -> Line2D:
    return next(line for line in axes.lines if line.get_color() == COLORS[variant])


def test_steps_that_runs_do_not_share_are_named_by_their_share_of_training(own: Own) -> None:
    path = own(seeds=1)
    short = next(path.glob("A-none*")) / "magnitudes.jsonl"
    rows = [row for row in short.read_text().splitlines() if json.loads(row)["step"] <= 500]
    short.write_text("\n".join(rows) + "\n")
    figure = figures.magnitude_depth(load(path))
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["step 50", "10% of training", "100% of training"]


def test_magnitudes_are_of_activations_weights_gradients_and_updates(measured: Study) -> None:
    figure = figures.magnitudes(measured)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == list(magnitude_plots.LEARNING.values())
    activations, weights, gradients, updates = figure.axes
    growth = [4.2 ** (block / 2) for block in (1, 2, 3, 4)]
    assert line_of(activations, "A-none").get_ydata()[-1] == pytest.approx(np.mean(growth))
    assert list(line_of(weights, "B-cosine").get_xdata()) == list(range(0, 1001, 50))
    assert list(line_of(weights, "B-cosine").get_ydata()[[0, -1]]) == pytest.approx([0.1, 0.2])
    assert line_of(gradients, "E-all").get_xdata()[0] == 50
    assert line_of(updates, "D-forced").get_ydata()[0] == pytest.approx(0.01 / 4)
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}


def test_distance_against_parameters_has_the_modulations(study: Study) -> None:
    figure = figures.distance_parameters(study)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("parameters", "FD-digits@1000")
    marks = {line.get_color(): line for line in axes.lines if line.get_marker() in style.MARKERS}
    expected = {"E-all": (500, 31), "E-all_rotation": (450, 33.5)}
    for variant, (parameters, mean) in expected.items():
        line = marks[COLORS[variant]]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (parameters, mean)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["E-all", "E-all_rotation", "E-all_rotation-scale"]


def test_a_sweep_changes_one_setting_and_holds_the_others(measured: Study) -> None:
    figure = figures.sweep(measured)
    assert [axes.get_xlabel() for axes in figure.axes] == list(distance_plots.SWEPT.values())
    assert figure.axes[0].get_ylabel() == "FD-digits@1000"
    for axes, key, own_value in zip(figure.axes, ("ema_std", "guidance"), (0.05, 1.5), strict=True):
        changes = {**synthetic.SWEEP[key], own_value: 0.0}
        line = line_of(axes, "E-all")
        found = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        assert found == {value: 31 + change for value, change in sorted(changes.items())}
        points = np.concatenate([c.get_offsets() for c in axes.collections])
        assert len(points) == 14 * len(changes)  # every seed's
        assert points[:, 1].max() < 99  # where both differ


def test_distance_over_training_has_the_snapshots_and_the_end(measured: Study) -> None:
    axes = figures.distance_training(measured).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training step", "FD-digits@1000")
    line = line_of(axes, "E-all")
    assert list(line.get_xdata()) == [250, 500, 1000]
    assert list(line.get_ydata()) == [71, 41, 31]


def test_a_tuning_curve_has_every_value_and_fills_the_mark_of_the_best(tmp_path: Path) -> None:
    axes = figures.tuning_curve(load(synthetic.write_tuned(tmp_path / "tuned"))).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("train.learning_rate", "FD-digits@1000")
    assert axes.get_xscale() == "log"
    for variant, curve in synthetic.TUNED.items():
        lines = [line for line in axes.lines if line.get_color() == COLORS[variant]]
        line, best = (line for line in lines if line.get_marker() not in ("", "None", "v", "^"))
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == pytest.approx(curve)
        assert to_hex(line.get_markerfacecolor()) == style.PAPER
        assert curve[best.get_xdata()[0]] == best.get_ydata()[0] == min(curve.values())
        assert to_hex(best.get_markerfacecolor()) == COLORS[variant]


@pytest.fixture(scope="module")
def factorial(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_factorial(tmp_path_factory.mktemp("factorial")))


def test_main_effects_are_those_that_were_put_in(factorial: Study) -> None:
    axes = figures.main_effects(factorial).axes[0]
    assert axes.get_xlabel().split("\n")[0] == "change of FD-digits@1000"
    names = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert names == [
        *("cosine_attention (cos)", "mp_silu (silu)"),
        *("conditioning = rotation", "conditioning = rotation_scale"),
    ]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    # each of the two that interact does half of what they do together, on the average
    cells = np.log([[20, 21], [16, 14]])[..., None] + np.log([1, 1.1, 1.025])  # about
    expected = [*np.diff(cells.mean(axis=(1, 2))), *np.diff(cells.mean(axis=(0, 2)))]
    found = [line.get_xdata()[0] for line in marks]
    assert found[:2] == pytest.approx(expected, abs=0.02)
    assert found[2:] == pytest.approx(np.log([1.115, 1.03]), abs=0.02)
    filled = [to_hex(line.get_markerfacecolor()) == style.PALETTE[0] for line in marks]
    assert filled == [True] * 4
    assert [text.get_text() for text in axes.texts] == ["p < 0.001"] * 4


def test_interactions_have_a_cell_a_pair_and_a_star_where_there_is_one(factorial: Study) -> None:
    axes, bar = figures.interactions(factorial).axes
    assert bar.get_xlabel() == "interaction (change of FD-digits@1000, %)"
    cells = {tuple(map(int, text.xy)): text.get_text() for text in axes.texts}
    assert len(cells) == 5  # a pair of levels of two factors each
    number = cells[0, 0]
    assert number.endswith("*")
    together = 100 * ((14 / 16 / (21 / 20)) ** 0.5 - 1)
    assert float(number[:-1].replace("−", "-")) == pytest.approx(together, abs=1)
    assert all(abs(float(text.strip("*").replace("−", "-"))) < 2 for where, text in cells.items()
               if where != (0, 0))  # fmt: skip


def test_a_ladder_has_no_factors(study: Study) -> None:
    for draw in (figures.main_effects, figures.interactions):
        with pytest.raises(NothingToShow, match="no two axes that are crossed"):
            draw(study)


def test_speed_is_the_median_without_the_first_row_and_its_ratio_to_the_first(own: Own) -> None:
    path = own()
    for run in path.glob("E-all_s*"):
        file = run / "metrics.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows[0]["images_per_s"] = 1.0
        for row in rows[1:]:
            row["images_per_s"] = 1200.0
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    axes = figures.speed(load(path)).axes[0]
    assert axes.get_xlabel().startswith("training speed (images/s")
    assert [text.get_text() for text in axes.texts] == [
        *["× 1.00"] * 4, "× 0.75", *["× 1.00"] * 2,
    ]  # fmt: skip
    points = np.asarray(axes.collections[4].get_offsets())
    assert points.tolist() == [[1200, 4], [1200, 4]]


def test_magnitude_over_training_has_a_panel_a_variant_and_a_line_a_block(study: Study) -> None:
    figure = figures.magnitude_training(study)
    assert [axes.get_title().replace("\n", "") for axes in figure.axes] == VARIANTS
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == [f"block {i}" for i in (1, 2, 3, 4)]
    assert list(lines[3].get_xdata()) == list(range(50, 1001, 50))
    assert lines[3].get_ydata()[-1] == pytest.approx(4.2**2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "4"]
    assert [text.get_text() for text in figure.axes[4].texts] == ["1–4"]


def test_loss_is_smoothed_and_averaged_over_seeds(study: Study) -> None:
    axes = figures.loss(study).axes[0]
    assert (axes.get_xlabel(), axes.get_yscale()) == ("step", "log")
    line = next(line for line in axes.lines if line.get_color() == COLORS["A-none"])
    rows = study.metrics[study.metrics["variant"] == "A-none"]
    # 20 rows a run: the running mean over a twentieth is the row itself.
    assert list(line.get_ydata()) == pytest.approx(list(rows.groupby("step")["loss"].mean()))


def test_a_sample_column_is_one_noise_and_class_in_every_variant(study: Study) -> None:
    figure = figures.samples(study)
    assert [axes.get_title(loc="left") for axes in figure.axes] == VARIANTS
    for order, axes in enumerate(figure.axes):
        strip = np.asarray(axes.images[0].get_array())
        cell = strip.shape[1] // 10
        assert strip.shape[0] == 64  # each of 8 pixels became 8
        centres = [strip[32, 32 + cell * column, 0] for column in range(10)]
        assert centres == [100 + 10 * label + order for label in range(10)]
        assert axes.images[0].get_interpolation() == "nearest"
    assert [text.get_text() for text in figure.axes[-1].texts] == [str(i) for i in range(10)]


def test_samples_of_another_ema_width_are_of_the_same_noise(measured: Study) -> None:
    assert figures.ema_widths(measured) == [0.03, 0.05, 0.1]
    own, wide = figures.samples(measured, 0.05), figures.samples(measured, 0.1)
    assert own.axes[1].images[0].get_array()[32, 32, 0] == 100 + 1
    assert wide.axes[1].images[0].get_array()[32, 32, 0] == 100 + 100
    with pytest.raises(NothingToShow):
        figures.samples(measured, 0.2)


def test_one_variants_activations_cross_at_the_block_and_step_asked_for(measured: Study) -> None:
    figure = figures.activations(measured, "A-none", block=2, step=500)
    over_steps, over_depth = figure.axes
    assert (over_steps.get_title(), over_depth.get_title()) == ("block 2", "step 500")
    residual = over_steps.lines[0]
    at_500 = list(residual.get_xdata()).index(500)
    assert residual.get_label() == "residual stream"
    assert residual.get_ydata()[at_500] == pytest.approx(2.6)
    assert list(over_depth.lines[0].get_ydata()) == pytest.approx(
        [2.6 ** (b / 2) for b in range(1, 5)]
    )
    with pytest.raises(NothingToShow, match="A-none has no probe of block 9 at step 500"):
        figures.activations(measured, "A-none", block=9, step=500)


def test_samples_come_from_the_seed_that_most_variants_have(own: Own) -> None:
    path = own()
    for run in (*path.glob("A-none_s0*"), *path.glob("B-cosine_s0*")):
        (run / "samples/samples.npz").write_bytes(b"torn")
    (next(path.glob("E-all_s1*")) / "samples/samples.npz").unlink()
    figure = figures.samples(load(path))
    assert figure.get_supxlabel() == "class (seed 1)"
    shown = [axes.get_title(loc="left") for axes in figure.axes]
    assert shown == [variant for variant in VARIANTS if variant != "E-all"]


def test_color_images_keep_their_colors(tmp_path: Path) -> None:
    run = synthetic.config({}, 0)
    folder = RunDir(tmp_path / f"a-{run.id}")
    synthetic.write_run(folder, run, 1.0)
    images = np.zeros((3, 16, 16, 3), dtype=np.uint8)
    images[..., 1] = 200
    np.savez_compressed(folder.samples / "samples.npz", images, np.array([7, 7, 7]))
    study = load(synthetic.write_listing(tmp_path, [synthetic.entry(folder, run, "a")]))
    strip = np.asarray(figures.samples(study).axes[0].images[0].get_array())
    assert list(strip[0, 0]) == [0, 200, 0, 255]


def test_a_variant_keeps_its_colour_when_others_are_missing(own: Own) -> None:
    path = own(seeds=1)
    for name in ("A-none", "D-forced"):
        run = next(path.glob(f"{name}*"))
        (run / "metrics.jsonl").unlink()
        (run / "magnitudes.jsonl").unlink()
    study = load(path)
    drawn = {line.get_color() for line in figures.loss(study).axes[0].lines}
    assert drawn == {COLORS[v] for v in VARIANTS if v not in ("A-none", "D-forced")}
    legend = figures.loss(study).legends[0]
    assert {text.get_text(): line.get_color() for text, line in zip(
        legend.get_texts(), legend.get_lines(), strict=True
    )}["E-all"] == COLORS["E-all"]  # fmt: skip


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_study_without_results_yet_has_nothing_to_show(own: Own, name: str) -> None:
    path = own(seeds=1)
    for run in path.glob("*_s0-*"):
        for file in ("metrics.jsonl", "magnitudes.jsonl", "evaluation.jsonl"):
            (run / file).unlink()
        (run / "samples/samples.npz").unlink()
    with pytest.raises(NothingToShow):
        figures.FIGURES[name](load(path))


def test_more_variants_than_one_can_tell_apart_are_cut_in_figures_of_lines(
    tmp_path: Path,
) -> None:
    entries = []
    for order in range(style.SHOWN + 3):
        run = synthetic.config({"depth": order + 1}, 0)
        folder = RunDir(tmp_path / f"v{order}-{run.id}")
        synthetic.write_run(folder, run, 1.0 + order)
        entries.append(synthetic.entry(folder, run, f"v{order}"))
    study = load(synthetic.write_listing(tmp_path, entries))
    figure = figures.loss(study)
    assert len(figure.legends[0].get_texts()) == style.SHOWN
    assert len(figures.samples(study).axes) == style.SHOWN
    assert len(figures.distance(study).axes[0].get_yticks()) == style.SHOWN + 3
    # the baseline and the best, which keep one look in all figures
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [f"v{order}" for order in range(style.SHOWN)]
    for file in tmp_path.glob("v1-*/evaluation.jsonl"):
        file.write_text(file.read_text().replace('"value": 2.0', '"value": 200.0'))
    worse = load(tmp_path)
    assert "v1" not in panels.shown(worse, worse.variants)
    drawn = panels.looks(worse)
    assert len({drawn[v] for v in panels.shown(worse, worse.variants)}) == style.SHOWN
    for entry in entries:
        entry["variant"] = "long-" * 60 + str(entry["variant"])
    long = load(synthetic.write_listing(tmp_path, entries))
    assert 1 < len(figures.distance(long).axes[0].get_yticks()) < style.SHOWN


def test_figures_are_the_same_bytes_every_time(study: Study, tmp_path: Path) -> None:
    def files(folder: Path) -> list[bytes]:
        folder.mkdir()
        style.save(figures.distance(study), folder / "distance")
        return [file.read_bytes() for file in sorted(folder.iterdir())]

    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert len(first) == 3
    assert first == second


def test_drawing_leaves_matplotlibs_settings_alone(study: Study) -> None:
    import matplotlib as mpl

    before = json.dumps(dict(mpl.rcParams), default=str)
    assert isinstance(figures.loss(study), Figure)
    assert json.dumps(dict(mpl.rcParams), default=str) == before


def test_names_break_at_their_own_separators() -> None:
    assert style.wrap("E-all_rotation-scale") == "E-all_rotation-\nscale"
    assert style.wrap("A-none") == "A-none"
    assert style.wrap("x" * 40, 18) == "\n".join(["x" * 18, "x" * 18, "x" * 4])
