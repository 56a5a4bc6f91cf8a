"""Studies with nothing to compare, or hardly anything, have tables, figures and a report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from analysis import NothingToShow, figures, tables
from analysis.judging import conclusions
from analysis.loading.load import load
from analysis.report import page, terminal
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

Own = Callable[..., Path]
SEEDS = [1, pytest.param(3, marks=pytest.mark.long)]


def one_variant(path: Path, seeds: int, rates: tuple[float | None, ...] = (None,)) -> Path:
    """A grid with ``base`` only, with so many seeds and learning rates to tune over."""
    entries = []
    for rate in rates:
        for seed in range(seeds):
            run = synthetic.config({}, seed, **({"learning_rate": rate} if rate else {}))
            folder = RunDir(path / f"base_s{seed}-{run.id}")
            synthetic.write_run(folder, run, 10.0 + seed)
            tune = {"train.learning_rate": rate} if rate else {}
            entries.append(synthetic.entry(folder, run, "base") | {"axes": {}, "tune": tune})
    return synthetic.write_listing(path, entries)


def unreadable(path: Path) -> None:
    for file in path.glob("*/config.yaml"):
        file.write_text("model: {")


def not_begun(path: Path) -> None:
    for config in path.glob("*/config.yaml"):
        shutil.rmtree(config.parent)


def without_a_number(path: Path) -> None:
    for file in path.glob("*/evaluation.jsonl"):
        rows = [{**row, "value": float("nan")} for row in read_rows(file)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def aliased(path: Path) -> Path:
    """Two crossed axes of which only two combinations were run."""
    entries = []
    for on in (False, True):
        run = synthetic.config({"cosine_attention": on, "mp_silu": on}, 0)
        folder = RunDir(path / f"v{on}_s0-{run.id}")
        synthetic.write_run(folder, run, 10.0 + on)
        axes = {"model.cosine_attention": on, "model.mp_silu": on}
        entries.append(synthetic.entry(folder, run, f"v{on}") | {"axes": axes})
    return synthetic.write_listing(path, entries)


def check(path: Path, *has: str) -> None:
    """The study has a report, with these tables."""
    study = load(path)
    html = page.write(study).read_text()
    assert {name for name in tables.TABLES if f'<section id="{name}">' in html} == set(has)
    terminal.show(study, Console(quiet=True))


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_study_of_one_variant_has_a_report(tmp_path: Path, seeds: int) -> None:
    path = one_variant(tmp_path, seeds)
    check(path, "ladder", "overhead", "inventory")
    assert conclusions.statements(load(path)) == []
    assert "the study has one variant" in (path / "report/report.html").read_text()


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_study_that_only_tunes_has_a_report(tmp_path: Path, seeds: int) -> None:
    path = one_variant(tmp_path, seeds, rates=(1e-3, 1e-2))
    check(path, "ladder", "tuning", "overhead", "inventory")


@pytest.mark.parametrize(
    ("spoil", "has"),
    [(unreadable, ()), (not_begun, ()), (without_a_number, ("overhead",))],
)
def test_a_study_whose_runs_cannot_be_compared_has_a_report(
    own: Own, spoil: Callable[[Path], None], has: tuple[str, ...]
) -> None:
    path = own(seeds=1)
    spoil(path)
    check(path, *has, "inventory")


def test_a_grid_whose_effects_cannot_be_told_apart_has_a_report(tmp_path: Path) -> None:
    path = aliased(tmp_path)
    check(path, "verdicts", "ladder", "overhead", "inventory")
    for make in (tables.main_effects, figures.main_effects):
        with pytest.raises(NothingToShow, match="no two axes that are crossed"):
            make(load(path))
