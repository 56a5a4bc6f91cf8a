"""``python -m analysis paper``: all that can be shown, and what makes the rest."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import figures, tables
from analysis.__main__ import main
from analysis.loading import published
from analysis.loading.load import load
from analysis.report import captions, paper
from mpdit.grid.plan import load_plan
from tests.helpers import ROOT, synthetic


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Drawing is what takes long."""

    def keep(*names: str) -> None:
        drawn = {name: figures.FIGURES[name] for name in names}
        parts = tuple(
            paper.Part(
                p.study, p.about, p.tables, {k: v for k, v in p.figures.items() if v in drawn}
            )
            for p in paper.PARTS
        )
        monkeypatch.setattr(paper, "PARTS", parts)

    return keep


def test_parts_are_of_studies_tables_and_figures_that_exist() -> None:
    for part in paper.PARTS:
        grid = ROOT / "experiments" / f"{part.study}.yaml"
        assert load_plan(grid).study == part.study
        assert str(grid.relative_to(ROOT)) in part.command
        assert set(part.tables.values()) <= set(tables.TABLES)
        assert set(part.figures.values()) <= set(figures.FIGURES)
    names = [name for part in paper.PARTS for name in (*part.tables, *part.figures)]
    assert len(names) == len(set(names))


def test_every_figure_has_a_title_and_a_caption() -> None:
    assert set(captions.TITLES) == set(figures.FIGURES)
    assert set(captions.CAPTIONS) == set(figures.FIGURES)


def test_what_is_there_is_shown_and_what_is_not_has_its_command(
    few: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few("loss", "sweep", "distance_parameters", "distance")
    results = tmp_path / "results"
    synthetic.write_study(results / "quickstart")
    run = next((results / "quickstart").glob("E-all_s1*"))
    (run / "evaluation.jsonl").unlink()
    published.write(load(synthetic.write_study(tmp_path / "ladder")), results / "published/ladder")
    assert main(["paper", "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert "ladder: 14 of 14 runs done" in said
    assert "quickstart: 13 of 14 runs done" in said
    command = "python launch.py submit experiments/modulation.yaml"
    assert f"modulation: missing; it is made by: {command}" in said
    out = results / "paper"
    page = (out / "paper.md").read_text()
    assert said.splitlines()[-1] == f"paper: {out / 'paper.md'}"
    assert f"Missing. It is made by `{command}`." in page
    assert "Of 1 run something is missing;" in page
    assert "python launch.py submit experiments/quickstart.yaml" in page
    assert "31.00 ± 12.71" in (out / "tables/table1-in-full.md").read_text()
    assert "31.00 ± 12.71" in page
    assert "table1: the ladder is of one model size." in page
    assert "ladder-sweep: no run was evaluated over EMA widths or guidance scales." in page
    shown = re.findall(r"!\[.*\]\((.*)\)", page)
    assert "figures/ladder-loss.png" in shown
    assert "figures/quickstart-distance_parameters.png" in shown
    for file in shown:
        assert (out / file).is_file()
        assert (out / file).with_suffix(".pdf").is_file()


def test_no_study_at_all_is_one_message_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path} has none of the paper's studies (ladder, ")
    assert error.endswith("python launch.py submit experiments/quickstart.yaml\n")
