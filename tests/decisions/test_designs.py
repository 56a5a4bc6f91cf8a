"""What designs cost, as ``benchmarks/decisions.py`` measures it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "decisions.py"


@pytest.mark.slow
def test_the_staged_design_needs_half_the_runs_at_the_same_error_rates() -> None:
    said = subprocess.run(
        [sys.executable, BENCHMARK, "--quick", "--json"], capture_output=True, text=True, check=True
    )
    found = json.loads(said.stdout)
    assert [*found] == [
        *("runs_ratio", "coverage", "familywise", "power", "power_today", "equivalence_error")
    ]
    assert found["runs_ratio"] < 0.5
    assert "fixed design: " in said.stderr
