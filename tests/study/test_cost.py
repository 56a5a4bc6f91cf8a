"""What a study will take by its plan, against what runs took; the question before a large bill."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mpdit.grid.plan import PlannedRun, make_plan
from mpdit.study import cost
from mpdit.study.cost import disk_of, make_bill
from mpdit.study.studydir import StudyDir
from mpdit.text import size_text
from tests.helpers import ROOT
from tests.helpers.interrupted import finish_forked
from tests.helpers.plans import grid_from_text
from tests.helpers.tiny import make

GRID = """\
study: s
base:
  data: digits
  model: {depth: 4, width: 64, heads: 4, patch_size: 2}
  train: {steps: 1000, batch_size: 32}
  sample: {count: 500, steps: 50, guidance: 2.0}
"""
A100 = 312e12  # FLOP/s in bfloat16, NVIDIA's data sheet


def planned(text: str) -> list[PlannedRun]:
    return list(make_plan(grid_from_text(text)).runs)


def test_disk_is_within_three_percent_of_what_a_finished_run_takes(tmp_path: Path) -> None:
    model = {"depth": 4, "width": 64, "heads": 4, "patch_size": 2}
    run = make(tmp_path / "run", model=model, train={"track": None})
    finish_forked(run)
    taken = {
        name: sum(file.stat().st_size for file in (run.path / name).iterdir())
        for name in ("checkpoints", "ema", "samples")
    }
    config = run.config()
    parameters = json.loads((run.path / "model.json").read_bytes())["parameters"]
    said = disk_of(config, parameters)
    assert said["checkpoints"] == pytest.approx(taken["checkpoints"], rel=0.03)
    assert said["ema"] == pytest.approx(taken["ema"], rel=0.03)
    (features,) = run.samples.glob("*.safetensors")
    assert said["features"] == pytest.approx(features.stat().st_size, rel=0.03)
    whole = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert sum(said.values()) == pytest.approx(whole, rel=0.03)


def test_hours_are_operations_over_the_assumed_speed() -> None:
    """DiT-XL/2 on 32×32 latents: 118.6 Gflops a forward pass by the DiT paper's table, which counts
    a multiplication and addition as one."""
    text = """\
study: xl
base:
  data: {name: latents, channels: 4, size: 32, classes: 1000}
  model: {name: DiT-XL/2}
  train: {steps: 400_000, batch_size: 256, precision: bfloat16}
  sample: {count: 50_000, steps: 250, guidance: 1.5, precision: bfloat16}
slurm: {gpus: 8, device: A100, utilization: 0.5}
"""
    forward = 2 * 118.6e9
    operations = 400_000 * 256 * 3 * forward + 50_000 * 250 * 2 * forward
    expected = operations / (A100 * 0.5) / 3600
    bill = make_bill(planned(text), None)
    assert bill.hours["GPU"] == pytest.approx(expected, rel=0.01)
    assert bill.lines()[0].endswith("one A100 at 50 % of its peak (slurm: device, utilization)")


def test_small_runs_that_share_a_gpu_share_its_hours() -> None:
    alone = make_bill(planned(GRID + "slurm: {gpus: 1}\n"), None)
    packed = make_bill(planned(GRID + "slurm: {gpus: 1, runs_per_job: 4}\n"), None)
    assert packed.hours["GPU"] == pytest.approx(alone.hours["GPU"] / 4, rel=0.05)


def finished(run: PlannedRun, study: Path, seconds: float, rate: int, device: str) -> None:
    """The folder that the run would have left, as fast as given."""
    folder = study / run.name
    folder.mkdir(parents=True)
    start = {"processes": 1, "threads": 2, "device": device}
    (folder / "provenance.json").write_text(json.dumps({"starts": [start]}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1000, "seconds": seconds}) + "\n")
    (folder / "log.txt").write_text(
        f"2026-01-01 00:00:00  sample 100/100  {rate:,} images/s  0 s\n"
    )
    (folder / "evaluation.jsonl").write_text('{"value": 1}\n')


def test_a_finished_runs_speed_is_that_of_the_others(tmp_path: Path) -> None:
    first, *others = planned(GRID + "seeds: 3\n")
    finished(first, tmp_path, seconds=100.0, rate=50, device="x86_64")
    bill = make_bill([first, *others], StudyDir(tmp_path))
    each = 2 * (100 + 500 / 50) + cost.START_S  # two cores
    assert bill.hours["core"] * 3600 == pytest.approx(3 * each)
    assert bill.lines()[0].endswith("from the speed of the study's finished runs")


def test_a_finished_run_on_a_cpu_says_nothing_of_gpus(tmp_path: Path) -> None:
    runs = planned(GRID + "slurm: {gpus: 1}\n")
    finished(runs[0], tmp_path, seconds=100.0, rate=50, device="x86_64")
    bill = make_bill(runs, StudyDir(tmp_path))
    assert bill.hours == make_bill(runs, None).hours
    assert "from FLOPs" in bill.lines()[0]


@pytest.mark.parametrize(
    ("size", "text"),
    [(12, "12 bytes"), (1000, "1.0 kB"), (9_960, "10 kB"), (999_999, "1.0 MB"), (2e15, "2,000 TB")],
)
def test_sizes_are_written_with_their_unit(size: float, text: str) -> None:
    assert size_text(size) == text


LARGE = GRID.replace("steps: 1000", "steps: 4_000_000_000")


def submit(here: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    (here / "grid.yaml").write_text(LARGE)
    command = [sys.executable, str(ROOT / "launch.py"), "submit", "grid.yaml", *words]
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, cwd=here, capture_output=True, text=True, check=False, **options
    )


def test_a_large_bill_is_refused_where_nobody_can_be_asked(tmp_path: Path) -> None:
    done = submit(tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "core-hours" in line
    assert "--yes" in line
    assert not (tmp_path / "results").exists()


def test_a_large_bill_is_asked_about_on_a_terminal(tmp_path: Path) -> None:
    person, terminal = pty.openpty()
    os.write(person, b"n\n")
    done = submit(tmp_path, stdin=terminal)
    os.close(terminal)
    os.close(person)
    assert "Submit? [y/N]" in done.stdout
    assert done.stderr == "error: not submitted\n"
    assert not (tmp_path / "results").exists()


def test_the_quickstart_is_no_large_bill() -> None:
    runs = planned((ROOT / "experiments" / "quickstart.yaml").read_text())
    assert not make_bill(runs, None).is_large
    assert make_bill(runs, None).hours["core"] == pytest.approx(0.6, rel=0.5)  # at most


def test_a_device_without_a_known_peak_is_an_error_with_its_line() -> None:
    with pytest.raises(Exception, match=r"the peak speed of 'H10O' is not known.*H100"):
        planned(GRID + "slurm: {gpus: 1, device: H10O}\n")
