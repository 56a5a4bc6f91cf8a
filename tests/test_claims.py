"""Who has claimed a study's runs, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

from mpdit.study.folder import StudyDir


def test_two_claims_of_one_process_in_one_second_are_two(tmp_path: Path) -> None:
    study = StudyDir(tmp_path)
    for run in ("a", "b"):
        study.new_claim("slurm", [run], job_name=run, arrays=[{"tasks": [[run]]}])[1].close()
    found = {claim.runs: claim.arrays[0].name for claim in study.claims()}
    assert found == {frozenset({"a"}): "a-0", frozenset({"b"}): "b-0"}
