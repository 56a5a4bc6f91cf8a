"""The summaries under version control stay readable: tables, answers and figures come from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import tables
from analysis.judging import answers
from analysis.loading.load import load
from tests.helpers import ROOT

OLD = ROOT / "tests" / "golden" / "version-0.1" / "published"
KEPT = [OLD, *sorted(file.parent for file in (ROOT / "results/published").glob("*/published.json"))]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_a_summary_under_version_control_gives_its_answers(path: Path) -> None:
    study = load(path)
    assert len(study.runs) > 1
    assert study.evaluations["value"].notna().any()
    assert answers.answers(study)
    assert len(tables.ladder(study)) > 1


def test_version_0_1s_summary_has_the_values_that_were_published() -> None:
    study = load(OLD)
    assert study.name == "quickstart"
    assert len(study.runs) == 14
    own = study.evaluations.query("role == 'run'").set_index("run")["value"]
    assert own["A-none_s0-ddef208c"] == pytest.approx(3.400007, abs=1e-6)
