"""Measure the three promises on the launcher's speed: ``python benchmarks/launcher.py``.

Prints seconds beside the promised ones, and ends with status 1 when a promise is not kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAUNCH = Path(__file__).resolve().parents[1] / "launch.py"
REPEATS = 3

GRID = """\
study: ten-thousand
base: {model: {depth: 4, width: 64, heads: 4, patch_size: 2}, data: digits, train: {steps: 1000}}
grid:
  cosine_attention: [false, true]
  mp_residual: [false, true]
  mp_silu: [false, true]
  model.conditioning: [adaln, rotation, rotation_scale, scale+gate, none]
  train.batch_size: [16, 32, 64, 128, 256]
tune: {train.learning_rate: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]}
seeds: 10
"""


def fastest(*arguments: str) -> float:
    """Seconds of wall time that one command takes, the best of a few."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, str(LAUNCH), *arguments], check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def make_results(study: Path, rows: list[dict[str, object]]) -> None:
    """Make as many run directories, half of them done, a quarter of them begun."""
    entries = []
    for index, row in enumerate(rows):
        folder = study / str(row["name"])
        folder.mkdir(parents=True)
        entries.append({**row, "steps": 1000, "in_grid": True})
        if index % 4 < 3:
            state = {"stage": "train", "step": index % 1000, "steps": 1000, "stopped": "SIGTERM"}
            (folder / "state.json").write_text(json.dumps(state))
            (folder / "lock").touch()
        if index % 4 < 2:
            (folder / "evaluation.jsonl").write_text('{"value": 1.0}\n')
    (study / "study.json").write_text(json.dumps({"study": study.name, "runs": entries}))


def report(what: str, seconds: float, promised: float) -> bool:
    """One line: measured, promised, and their ratio."""
    print(f"{what:42} {seconds:6.2f} s  promised {promised:3.1f} s  ×{seconds / promised:.2f}")
    return seconds <= promised


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "grid.yaml"
        grid.write_text(GRID)
        kept = [
            report("launch.py --help", fastest("--help"), 0.4),
            report("plan of 10,000 runs", fastest("plan", str(grid)), 3),
        ]
        plan = [sys.executable, str(LAUNCH), "plan", str(grid), "--json"]
        rows = json.loads(subprocess.run(plan, check=True, capture_output=True).stdout)
        keys = ("name", "id", "variant", "seed", "parameters")
        study = Path(folder) / "results" / "ten-thousand"
        make_results(study, [{key: row[key] for key in keys} for row in rows])
        kept.append(report("status of 10,000 run directories", fastest("status", str(study)), 2))
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
