"""A thousand runs on Slurm, timed and counted: ``python benchmarks/submission.py``.

Plans and submits the runs, reads their status and cancels them, and counts every Slurm command;
then the same with a tenth of the runs. Also times the snapshot of the code alone, which each
submission takes. Without a cluster, it starts its own (as root, see
tests/helpers/slurm/cluster.py). Ends with status 1 when a promise is not kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mpdit.disk import codefiles
from mpdit.study import codesnapshot

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
RUNS, PROMISED_S, SNAPSHOT_S = 1000, 5.0, 1.0

GRID = """\
study: submitted-{runs}
base:
  data: digits
  model: {{depth: 4, width: 64, heads: 4, patch_size: 2}}
  train: {{steps: 10}}
tune: {{train.learning_rate: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]}}
seeds: {seeds}
slurm: {{time: 10, extra: {{hold: true}}}}
"""


def make_counters(folder: Path) -> dict[str, str]:
    """An environment in which each of Slurm's commands is recorded before it is run."""
    folder.mkdir()
    for command in COMMANDS:
        real = shutil.which(command)
        counter = folder / command
        counter.write_text(f'#!/bin/sh\necho {command} >> {folder}/asked\nexec {real} "$@"\n')
        counter.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def timed(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[float, Counter[str]]:
    """Seconds that one command of launch.py takes, and its calls of Slurm's commands."""
    asked = Path(environment["PATH"].partition(":")[0]) / "asked"
    asked.write_text("")
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *arguments],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began, Counter(asked.read_text().split())


def measure(folder: Path, environment: dict[str, str], runs: int) -> list[tuple[float, int]]:
    """Print and return (seconds, calls) of submit, status and cancel of ``runs`` runs."""
    grid = folder / f"{runs}.yaml"
    grid.write_text(GRID.format(runs=runs, seeds=runs // 5))
    study = f"submitted-{runs}"
    found = []
    for words in (("submit", str(grid), "--yes"), ("status", study), ("cancel", study)):
        seconds, calls = timed(folder, environment, *words)
        listed = ", ".join(f"{count} {command}" for command, count in calls.items())
        print(f"{words[0]:7} {runs:5,} runs  {seconds:5.2f} s  {calls.total():2} calls: {listed}")
        found.append((seconds, calls.total()))
    return found


def time_snapshot(folder: Path) -> float:
    """Print and return the seconds of a study's first snapshot of the code."""
    folder.mkdir()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        codesnapshot.assign(folder, ["run"], (), (), live=False)
        seconds.append(time.perf_counter() - began)
    files = codefiles.tree(next((folder / codesnapshot.FOLDER).iterdir()))
    size = sum(map(len, files.values()))
    print(
        f"snapshot of {len(files)} files ({size / 1e6:.1f} MB): {seconds[0]:.2f} s, "
        f"of the same code again {seconds[1]:.2f} s"
    )
    return seconds[0]


def main() -> int:
    if (
        shutil.which("sbatch") is None
        or subprocess.run(
            ["scontrol", "ping"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
    ):
        cluster = str(ROOT / "tests" / "helpers" / "slurm" / "cluster.py")
        return subprocess.run([sys.executable, cluster, sys.executable, __file__]).returncode
    with tempfile.TemporaryDirectory() as name:
        environment = make_counters(Path(name) / "bin")
        snapshot_s = time_snapshot(Path(name) / "study")
        few = measure(Path(name), environment, RUNS // 10)
        many = measure(Path(name), environment, RUNS)
    (seconds, submitting), (_, asking), _ = many
    kept = seconds < PROMISED_S and submitting == few[0][1] and asking <= 2
    kept = kept and snapshot_s < SNAPSHOT_S
    print(f"{RUNS:,} runs submitted in {seconds:.2f} s, promised {PROMISED_S:.0f} s")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
