"""benchmarks/gpu.py: each check is a process with a limit, whose rows are streamed and kept."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_checks(out: Path, *words: str) -> tuple[int, str, list[dict[str, object]]]:
    """The exit status, what was printed, and the kept rows."""
    script = [sys.executable, "benchmarks/gpu.py", "--tiny", "--device", "cpu", "--out", str(out)]
    done = subprocess.run([*script, *words], cwd=ROOT, capture_output=True, text=True)
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    return done.returncode, done.stdout, rows


def test_the_checks_of_a_gpu_run_on_a_cpu_and_their_rows_are_kept(tmp_path: Path) -> None:
    only = ("--only", "environment", "numerics", "checkpoints", "--patience", "8")
    status, printed, rows = run_checks(tmp_path, *only)
    assert status == 0, printed
    assert [row["check"] for row in rows if row["ok"] is False] == []
    assert {row["check"] for row in rows} == {"environment", "numerics", "checkpoints"}
    beside_cpu = [row for row in rows if row["check"] == "numerics"]
    assert [row["ok"] for row in beside_cpu] == [True] * 5
    assert "device" in {row["name"] for row in rows}
    assert f"{len(rows)} rows, 0 failed" in printed
    (state,) = (row["value"] for row in rows if row["check"] == "checkpoints")
    assert isinstance(state, dict)
    assert state["GB"] > 0


def test_a_check_over_its_limit_fails_and_takes_no_other_along(tmp_path: Path) -> None:
    only = ("--only", "samples", "numerics", "--patience", "0.001")
    status, printed, rows = run_checks(tmp_path, *only)
    assert status == 1
    ended = sorted((row["check"], row["ok"]) for row in rows if row["name"] == "ended")
    assert ended == [("numerics", False), ("samples", False)]
    assert "2 failed" in printed
