"""``python -m mpdit.sample`` leaves the run as it is; a mistake or a stop is one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit.disk.files import append_row
from mpdit.disk.rundir import RunDir, RunState
from mpdit.ema.power import snapshot_file, write_snapshot
from mpdit.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from tests.helpers.samples import arrays, command, drawn
from tests.helpers.trained import talking_model

CPU = torch.device("cpu")
CTRL_C_WHILE_TORCH_IS_IMPORTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""


@pytest.mark.parametrize(
    "place", ["mpdit.disk.npz.write", "mpdit.sampling.sampleset.write_grid", "shutil.rmtree"]
)
def test_a_full_disk_at_the_end_of_a_set_leaves_what_the_same_command_finishes(
    place: str,
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "set.npz"
    arguments = (run.path, "--count", 12, "--out", out)
    with monkeypatch.context() as broken:
        broken.setattr(place, full)
        assert command(*arguments) == EXIT_FAILED
    assert (tmp_path / "set.shards" / "set.json").exists()
    assert command(*arguments[:1], "--count", 13, "--out", out) == EXIT_USAGE
    assert "part of another sample set" in capsys.readouterr().err
    assert command(*arguments) == EXIT_DONE
    assert np.array_equal(arrays(out)[0], drawn(run, count=12))
    assert sorted(file.name for file in tmp_path.glob("set*")) == ["set.npz", "set.png"]


@pytest.mark.long
@pytest.mark.parametrize("program", ["mpdit.sample", "mpdit.evaluate"])
def test_ctrl_c_while_torch_is_imported_is_one_line(
    program: str, run: RunDir, tmp_path: Path
) -> None:
    row = {"metric": "FD-digits@50", "value": 1.0, "count": 50, "weights": ""}
    append_row(run.path / "evaluation.jsonl", row)  # only a finished run is measured again
    run.write_state(RunState(stage="done"))
    (tmp_path / "sitecustomize.py").write_text(CTRL_C_WHILE_TORCH_IS_IMPORTED)
    ended = subprocess.run(
        [sys.executable, "-m", program, str(run.path), "--guidance", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == EXIT_INTERRUPTED
    assert ended.stderr.splitlines()[-1] == "stopped by SIGINT; the same command resumes"
    assert "Traceback" not in ended.stderr


def test_samples_that_are_no_numbers_are_a_failure_in_one_line_and_no_images(
    run: RunDir, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = talking_model(run.config())
    torch.nn.init.constant_(broken.final.linear.weight, float("inf"))
    write_snapshot(snapshot_file(run.ema, 0.05, 24), broken.state_dict())
    out = tmp_path / "set.npz"
    assert command(run.path, "--count", 12, "--out", out) == EXIT_FAILED
    said = capsys.readouterr().err.splitlines()[-1]
    assert "samples 0-11 of samples_count12 are not finite numbers (EMA width 0.05, step" in said
    assert not out.exists()


def test_the_command_draws_beside_the_run_and_leaves_it_as_it_is(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def files() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}

    before = files()
    monkeypatch.chdir(tmp_path)
    options = ["--classes", "3,7,0-1", "--count", 12, "--guidance", 2, "--seed", 5]
    assert command(run.path, *options, "--solver", "dpm++") == EXIT_DONE
    name = "run_samples_dpmpp_guidance2_seed5_count12_classes3-7-0-1"
    assert name in capsys.readouterr().out
    images, classes = arrays(tmp_path / f"{name}.npz")
    changes = {"classes": (3, 7, 0, 1), "count": 12, "guidance": 2.0, "seed": 5, "solver": "dpm++"}
    assert np.abs(images.astype(int) - drawn(run, **changes)).max() <= 1
    assert classes.tolist() == [3, 7, 0, 1] * 3
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.size == (10 * (8 + 2) * 4, (8 + 2) * 4)  # the last row is not whole
    assert files() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "3,12"], "--classes: 12 is not among the classes 0-9"),
        (["--classes", "3,x"], "--classes: 'x' is not a class"),
        (["--classes", "9" * 5000], "999 is not a class or a range"),
        (["--classes", "0-" + "9" * 5000], "999 is not a class or a range"),
        (["--ema-std", "0.5"], "--ema-std: should be less than 0.28"),
        (["--solver", "ddmp"], "Did you mean 'ddpm'?"),
        (["--solver", "heun"], "error: sample.solver heun cannot sample a model of"),
        (["--steps", "0"], "--steps: should be greater than 0"),
        (["--step", "18"], "no EMA snapshots of step 18 of 24; the newest are of --step 24"),
        (["--out", "{run}/samples/samples.npz"], "--out: {run}/samples/samples.npz is among"),
        (["--out", "{run}/../there.npz"], "already exists"),
        (["--out", "{run}/../nowhere/x.npz"], "--out: there is no folder"),
        (["--out", "x.png"], "--out: x.png does not end in .npz"),
    ],
)
def test_a_mistake_is_said_in_one_line(
    run: RunDir,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run.path.parent / "there.npz").touch()
    filled = [option.format(run=run.path) for option in options]
    assert command(run.path, *filled) == EXIT_USAGE
    said = capsys.readouterr().err
    assert message.format(run=run.path) in said
    assert said.count("\n") == 1


def test_what_is_no_trained_run_is_said_in_one_line(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in run.ema.glob("*_step00000024*"):
        file.unlink()
    assert command(run.path) == EXIT_USAGE
    assert (
        "no EMA snapshots of step 24 of 24; the newest are of --step 12" in capsys.readouterr().err
    )
    snapshot_file(run.ema, 0.05, 12).write_bytes(b"torn")
    out = ["--out", run.path.parent / "x.npz"]
    assert command(run.path, "--step", 12, *out) == EXIT_USAGE
    assert "step00000012.safetensors is damaged" in capsys.readouterr().err
    for file in run.ema.iterdir():
        file.unlink()
    assert command(run.path) == EXIT_USAGE
    assert "train it first" in capsys.readouterr().err
    assert command(run.path.parent) == EXIT_USAGE
    assert "is not a run directory" in capsys.readouterr().err
