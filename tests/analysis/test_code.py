"""Runs with different code: a reader is told where they are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.judging import words
from analysis.loading.load import load
from analysis.tables import origins
from tests.helpers import synthetic


def record(path: Path, pattern: str, *hashes: str | None) -> None:
    """Have runs record the code of each start."""
    for file in path.glob(f"{pattern}/provenance.json"):
        start = json.loads(file.read_bytes())["starts"][0]
        paths = {"imported_from": str(file), "checkout": "/x", "code_snapshot": hashes[0]}
        starts = [{**start, "code_hash": one, **paths} for one in hashes]
        file.write_text(json.dumps({"starts": starts}))


def warned(path: Path) -> list[str]:
    return [line for line in words.warnings(load(path)) if "code" in line]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = synthetic.write_study(tmp_path / "study")
    record(path, "*", "aaaaaaaa1111")
    return path


def test_one_code_needs_no_warning_wherever_it_was_imported_from(study: Path) -> None:
    assert warned(study) == []
    assert origins.differences(load(study)).empty


def test_code_that_differs_within_a_comparison_is_named_with_its_variants(study: Path) -> None:
    record(study, "E-all_s*", "bbbbbbbb2222")
    (said,) = warned(study)
    assert "aaaaaaa (12 runs of A-none, B-cosine, " in said
    assert "bbbbbbb (2 runs of E-all)" in said
    inventory = origins.inventory(load(study))
    assert inventory["code_hash"].value_counts().to_dict() == {
        "aaaaaaaa1111": 12,
        "bbbbbbbb2222": 2,
    }


def test_a_run_that_resumed_with_other_code_is_named(study: Path) -> None:
    record(study, "E-all_s0*", "aaaaaaaa1111", "bbbbbbbb2222")
    (run,) = (file.name for file in study.glob("E-all_s0*"))
    assert f"1 run resumed with other code ({run})" in warned(study)


def test_runs_of_versions_that_recorded_no_code_are_told_apart_only_from_others(
    study: Path,
) -> None:
    record(study, "*", None)
    assert warned(study) == []
    record(study, "E-all_s*", "bbbbbbbb2222")
    (said,) = warned(study)
    assert "not recorded (12 runs of A-none" in said
