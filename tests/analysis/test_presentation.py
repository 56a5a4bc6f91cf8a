"""What `cases` found ugly or misleading in figures and tables: each is held here by numbers."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from analysis import Study, figures, tables
from analysis.figures import forest, style
from analysis.judging import conclusions
from analysis.loading.load import load
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

Own = Callable[..., Path]
LONG = 30


def measured(path: Path, times: float, stretched: int = 1) -> Study:
    """The synthetic study with sweeps; distances are ``times`` as large, training ``stretched``."""
    entries = json.loads((path / "study.json").read_text())["runs"]
    orders = {name: order for order, name in enumerate(synthetic.VARIANTS)}
    for entry in entries:
        run, variant = RunDir(path / entry["name"]), entry["variant"]
        synthetic.write_learning(run, orders[variant])
        distance = synthetic.DISTANCES[variant][entry["seed"]]
        synthetic.write_sweep(run, distance, entry["seed"])
        rows = [
            json.loads(line) for line in (run.path / "evaluation.jsonl").read_text().splitlines()
        ]
        for row in rows:
            row["value"] *= times
            row["sampling"]["snapshot"] *= stretched
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (run.path / "evaluation.jsonl").write_text(lines)
        for name in ("metrics.jsonl", "magnitudes.jsonl"):
            text = (run.path / name).read_text()
            longer = re.sub(r'"step": (\d+)', lambda m: f'"step": {int(m[1]) * stretched}', text)
            (run.path / name).write_text(longer)
    return load(path)


def labels(figure: Figure) -> Iterator[tuple[Axis, list[str]]]:
    """Each axis with its visible tick labels."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            inside = [t for t in ticks if low <= t.get_loc() <= high and t.label1.get_visible()]
            yield axis, [t.label1.get_text() for t in inside if t.label1.get_text()]


CURVES = ("loss", "magnitude_training", "magnitudes", "distance_training")


def test_steps_of_a_long_training_do_not_collide(own: Own) -> None:
    study = measured(own(), 1, stretched=LONG)
    for name in CURVES:
        figure = figures.FIGURES[name](study)
        figure.draw_without_rendering()
        for axes in figure.axes:
            low, high = axes.get_xlim()
            ticks = [t for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
            shown = [t.label1 for t in ticks if t.label1.get_visible() and t.label1.get_text()]
            boxes = sorted((text.get_window_extent() for text in shown), key=lambda box: box.x0)
            gaps = [right.x0 - left.x1 for left, right in itertools.pairwise(boxes)]
            assert all(gap > 2 for gap in gaps), (name, [text.get_text() for text in shown])
            texts = {text.get_text() for text in shown}
            assert texts <= {f"{step}k" for step in range(31)} | {"0k"}, name


@pytest.mark.parametrize("times", [10, 1000, 1e-4])
def test_ticks_are_plain_numbers_at_every_size(own: Own, times: float) -> None:
    study = measured(own(), times)
    for name in ("distance", "distance_parameters", "distance_training", "sweep"):
        figure = figures.FIGURES[name](study)
        for axis, texts in labels(figure):
            assert axis.get_offset_text().get_text() == "", name
            assert not any("e+" in text or "e-" in text for text in texts), (name, texts)
        values = [texts for axis, texts in labels(figure) if axis.axis_name == "y"]
        assert name == "distance" or len(values[0]) >= 2, (name, values)


def test_negative_kernel_distances_are_drawn_and_their_change_lies_in_its_interval(
    tmp_path: Path,
) -> None:
    near = {"A-none": (-0.0010, 0.0002, -0.0004), "B-cosine": (0.0010, 0.0014, 0.0013)}
    entries = []
    for variant, of_seeds in near.items():
        for seed, value in enumerate(of_seeds):
            run = synthetic.config(synthetic.VARIANTS[variant], seed)
            folder = RunDir(tmp_path / f"{variant}_s{seed}-{run.id}")
            folder.write_config(run)
            synthetic.write_evaluation(folder, value, seed, metric="KD-digits@1000")
            entries.append(synthetic.entry(folder, run, variant))
    study = load(synthetic.write_listing(tmp_path, entries))
    axes = figures.distance(study).axes[0]
    low, high = axes.get_xlim()
    points = np.concatenate([np.asarray(c.get_offsets())[:, 0] for c in axes.collections])
    assert sorted(points) == sorted(itertools.chain(*near.values()))
    assert low < min(points) <= max(points) < high
    [row] = tables.verdicts(study).to_dict("records")
    assert row["scale"] == "difference"
    means = [np.mean(found) for found in near.values()]
    assert row["effect"] == pytest.approx(means[1] - means[0])
    assert row["low"] < row["effect"] < row["high"]


def test_noise_stays_pale_in_the_map_of_interactions(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    for is_pale in (True, False):
        path = synthetic.write_factorial(tmp_path / f"pale-{is_pale}")
        for file in path.glob("*/evaluation.jsonl") if is_pale else []:
            row = json.loads(file.read_text())
            file.write_text(json.dumps({**row, "value": 20 + noise.normal()}) + "\n")
        axes, _ = figures.interactions(load(path)).axes
        image = axes.images[0]
        low, high = image.get_clim()
        assert low == -high
        strongest = float(np.nanmax(np.abs(np.asarray(image.get_array()))) / high)
        assert strongest <= 0.51 if is_pale else strongest > 0.9


def test_many_failures_are_one_sentence(own: Own) -> None:
    path = own(seeds=2)
    for run in path.glob("*_s1-*"):
        (run / "evaluation.jsonl").unlink()
        state = {"stage": "train", "step": 9, "steps": 1000, "error": "the loss is nan at step 9"}
        (run / "state.json").write_text(json.dumps(state))
    said = conclusions.statements(load(path))
    failed = [sentence for sentence in said if "failed:" in sentence]
    assert len(failed) == 1
    assert failed[0].startswith("7 runs failed: A-none (1 of 2), B-cosine (1 of 2), ")
    assert failed[0].endswith("… 1 more.")


def test_the_first_figure_fits_a_screen_and_says_what_it_leaves_out(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forest, "ONE_SCREEN", 4)
    study = load(own())
    _, caption = figures.FIGURES["answers"].save(study, tmp_path / "answers")
    assert "Drawn: 4 of 6 comparisons" in caption
    assert len(figures.answers(study).axes[0].get_yticks()) == 4
    monkeypatch.undo()
    _, caption = figures.FIGURES["answers"].save(study, tmp_path / "answers")
    assert "Drawn" not in caption
    height = 0.55 + 0.2 * 1.25 * forest.ONE_SCREEN  # inches, of names of one line
    assert height / style.COLUMN * 544 < 800  # pixels, at the width that the page gives it


def test_captions_count_only_what_is_left_out(study: Study, tmp_path: Path) -> None:
    for name in ("distance", "loss", "speed"):
        _, caption = figures.FIGURES[name].save(study, tmp_path / name)
        assert "of 7 variants" not in caption
