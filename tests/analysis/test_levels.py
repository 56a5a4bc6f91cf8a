"""Axes of any kind of value: none, lists, codes that two factors share, fractions of a grid."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import Study, figures
from analysis.judging import comparison, tuning
from analysis.judging.levels import text
from analysis.loading import published
from analysis.loading.load import load
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

Axes = dict[str, Any]
SWITCHES = tuple(f"model.{name}" for name in ("cosine_attention", "mp_silu", "mp_residual"))


def crossed(
    path: Path,
    points: list[Axes],
    distance: Callable[[Axes], float],
    kind: str = "axes",
    seeds: int = 2,
) -> Study:
    """A run a point and seed; those of ``tune`` are one variant."""
    noise = np.random.default_rng(0)
    entries = []
    for number, axes in enumerate(points):
        for seed in range(seeds):
            parts: dict[str, dict[str, Any]] = {"model": {}, "train": {}}
            for key, value in axes.items():
                section, _, name = key.partition(".")
                parts[section][name] = value
            run = synthetic.config(parts["model"], seed, **parts["train"])
            folder = RunDir(path / f"v{number}_s{seed}-{run.id}")
            folder.write_config(run)
            synthetic.write_evaluation(folder, distance(axes) + noise.normal(0, 0.1), seed)
            variant = f"v{number}" if kind == "axes" else "v"
            entries.append(synthetic.entry(folder, run, variant) | {kind: axes})
    return load(synthetic.write_listing(path, entries))


def product(axes: Mapping[str, tuple[Any, ...]]) -> list[Axes]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def test_a_level_is_one_text_whatever_its_type() -> None:
    found = [text(value) for value in (None, float("nan"), (0.9, 0.99), 2.0, 2, 1e-3)]
    assert found == ["none", "none", "0.9, 0.99", "2", "2", "0.001"]


def test_none_is_a_level_that_the_others_are_held_against(tmp_path: Path) -> None:
    does = {None: 0.0, 0.1: -5.0, 1.0: 3.0}
    points = product({"train.clip_norm": tuple(does), SWITCHES[0]: (False, True)})
    study = crossed(tmp_path, points, lambda axes: 20 + does[axes["train.clip_norm"]])
    fit = comparison.factorial(study)
    clip = {e.levels: e for e in fit.effects if e.factors == ("train.clip_norm",)}
    assert clip[("0.1",)].estimate.value == pytest.approx(math.log(15 / 20), abs=0.02)
    assert clip[("1",)].estimate.value == pytest.approx(math.log(23 / 20), abs=0.02)
    assert clip[("1",)].estimate.n == 12


def test_lists_are_levels_before_and_after_publishing(tmp_path: Path) -> None:
    betas = ([0.9, 0.99], [0.9, 0.95])
    points = product({"train.adam_betas": betas, SWITCHES[0]: (False, True)})
    study = crossed(tmp_path / "study", points, lambda axes: axes["train.adam_betas"][1] * 100)
    for found in (study, load(published.write(study, tmp_path / "out"))):
        ticks = figures.main_effects(found).axes[0].get_yticklabels()
        names = [tick.get_text().replace("\n", " ") for tick in ticks]
        assert names == ["adam_betas = 0.9, 0.95", "cosine_attention (cos)"]
        figures.interactions(found)


def test_two_factors_with_the_same_levels_have_cells_of_their_own(tmp_path: Path) -> None:
    modes = ("adaln", "rotation")
    keys = ("model.conditioning", "model.final_conditioning")
    points = product({keys[0]: modes, keys[1]: modes, SWITCHES[0]: (False, True)})
    together = {keys[0]: "rotation", keys[1]: "rotation"}
    study = crossed(
        tmp_path, points, lambda axes: 20.0 - 8 * (axes | together == axes) + 4 * axes[SWITCHES[0]]
    )
    axes = figures.interactions(study).axes[0]
    columns = [tick.get_text() for tick in axes.get_xticklabels()]
    rows = [tick.get_text() for tick in axes.get_yticklabels()]
    assert columns == [f"{key} rotation" for key in ("conditioning", "final_conditioning")]
    assert rows == ["final_conditioning rotation", "cos"]
    cells = {
        (columns[round(cell.xy[0])], rows[round(cell.xy[1])]): cell.get_text()
        for cell in axes.texts
    }
    assert len(cells) == 3
    assert cells[columns[0], rows[0]].startswith("−21")


def test_zipped_keys_are_one_factor_under_the_name_that_tells_all_of_them(tmp_path: Path) -> None:
    objectives = {"epsilon": 1, "v": 1, "x": 2}
    zipped = [{"train.batch_size": n, "train.objective": o} for o, n in objectives.items()]
    points = [one | {SWITCHES[0]: on} for one in zipped for on in (False, True)]
    study = crossed(tmp_path, points, lambda axes: 20.0 + 5 * (axes["train.objective"] == "x"))
    fit = comparison.factorial(study)
    assert fit.factors == ("train.objective", "cosine_attention")
    x = {e.levels: e for e in fit.effects if e.factors == ("train.objective",)}[("x",)]
    assert x.estimate.value == pytest.approx(math.log(25 / 20), abs=0.02)


def test_a_half_fraction_has_a_map_of_what_can_be_told(tmp_path: Path) -> None:
    points = [
        point
        for point in product(dict.fromkeys((*SWITCHES, "model.no_layernorm"), (False, True)))
        if point[SWITCHES[0]] == (point[SWITCHES[1]] == point[SWITCHES[2]])
    ]
    study = crossed(tmp_path, points, lambda axes: 20.0 + axes["model.no_layernorm"])
    mains = [e.factors for e in comparison.factorial(study).effects if len(e.factors) == 1]
    assert mains == [("no_layernorm",)]  # the others are aliased
    axes = figures.interactions(study).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["silu", "res", "noln"]
    assert len(axes.texts) == 3


def test_none_and_lists_can_be_tuned(tmp_path: Path) -> None:
    values = {"train.clip_norm": (None, 0.1), "train.adam_betas": ([0.9, 0.99], [0.9, 0.95])}
    study = crossed(
        tmp_path, product(values), lambda axes: 20.0 - 5 * (axes["train.clip_norm"] is None), "tune"
    )
    points = tuning.curve(study)
    assert list(points["tune.train.clip_norm"]) == ["none", "none", "0.1", "0.1"]
    assert set(points.loc[points["best"], "tune.train.clip_norm"]) == {"none"}
    figure = figures.tuning_curve(study)
    clip, betas = figure.axes
    assert [tick.get_text() for tick in clip.get_xticklabels()] == ["none", "0.1"]
    assert [tick.get_text() for tick in betas.get_xticklabels()] == ["0.9, 0.99", "0.9, 0.95"]
    curve = next(line for line in clip.lines if len(line.get_xdata()) == 2)
    assert list(curve.get_xdata()) == [0, 1]
    assert not any("at the edge" in said for said in tuning.remarks(study))


def test_an_interval_that_leaves_the_tuning_curve_ends_in_an_arrow(tmp_path: Path) -> None:
    points = [{"train.learning_rate": rate} for rate in (1e-4, 1e-3)]
    study = crossed(tmp_path, points, lambda _: 20.0, "tune", seeds=3)
    wide = study.evaluations.assign(value=pd.Series([5.0, 40.0, 20.0, 20.0, 20.1, 20.2]))
    study = Study(**{**vars(study), "evaluations": wide})
    axes = figures.tuning_curve(study).axes[0]
    arrows = {line.get_marker() for line in axes.lines} & {"v", "^"}
    assert arrows == {"v", "^"}
