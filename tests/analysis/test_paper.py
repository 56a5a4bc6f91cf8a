"""``python -m analysis paper``: all that can be shown, and what makes the rest."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import figures, tables
from analysis.__main__ import main
from analysis.loading import published
from analysis.loading.load import load
from analysis.report import paper
from mpdit.invocation import typed
from tests.helpers import ROOT, synthetic
from tests.helpers.plans import load_plan


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Drawing is what takes long."""

    def keep(*names: str) -> None:
        chapters = tuple(
            replace(s, figures={k: v for k, v in s.figures.items() if v.name in names})
            for s in paper.CHAPTERS
        )
        monkeypatch.setattr(paper, "CHAPTERS", chapters)

    return keep


def test_sections_are_of_studies_tables_and_figures_that_exist() -> None:
    for chapter in paper.CHAPTERS:
        grid = ROOT / "experiments" / f"{chapter.study}.yaml"
        assert load_plan(grid).study == chapter.study
        assert str(grid.relative_to(ROOT)) in chapter.command
        assert set(chapter.tables.values()) <= set(tables.TABLES.values())
        assert set(chapter.figures.values()) <= set(figures.FIGURES.values())
    names = [name for chapter in paper.CHAPTERS for name in (*chapter.tables, *chapter.figures)]
    assert len(names) == len(set(names))


def test_an_unknown_table_or_figure_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(KeyError, match=r"no table 'laddre'\. Did you mean 'ladder'"):
        paper.Chapter.of("study", "", "ladder laddre", "")
    with pytest.raises(KeyError, match=r"no figure 'distence'\. Did you mean 'distance'"):
        paper.Chapter.of("study", "", "", "distence")


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
    command = typed("submit", "experiments/modulation.yaml")
    assert f"modulation: missing; make it with: {command}" in said
    out = results / "paper"
    page = (out / "paper.md").read_text()
    assert said.splitlines()[-1] == f"paper: {out / 'paper.md'}"
    assert f"Missing. Make it with `{command}`." in page
    assert f"1 run is incomplete; `{typed('submit')}" in page
    assert typed("submit", "experiments/quickstart.yaml") in page
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
    assert error.endswith(f"{typed('submit', 'experiments/quickstart.yaml')}\n")
