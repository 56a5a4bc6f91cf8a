"""One run as its own process: what it leaves behind, and how it says what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_BUSY, EXIT_FAILED, EXIT_USAGE
from mpdit.runtime.session import Session
from mpdit.sampling.sampleset import CAPTION_PIXELS
from tests.helpers.images import class_folders
from tests.helpers.interrupted import finish, finish_forked, fork, science_of, start
from tests.helpers.tiny import make


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = make(tmp_path_factory.mktemp("study") / "whole")
    finish(run)
    return run


def test_a_run_leaves_everything_the_contract_names(uninterrupted: RunDir) -> None:
    run = uninterrupted
    assert run.is_done()
    state = run.state()
    assert state is not None
    assert (state.stage, state.error, state.stopped) == ("done", None, None)
    assert [row["step"] for row in read_rows(run.path / "metrics.jsonl")] == [5, 10, 15, 20, 24]
    residual = [r for r in read_rows(run.path / "magnitudes.jsonl") if r["site"] == "residual"]
    assert [row["step"] for row in residual] == [0, 8, 16, 24]
    assert sorted(file.name for file in run.ema.iterdir()) == [
        f"std{std}_step{step:08d}.safetensors" for std in ("0.050", "0.100") for step in (12, 24)
    ]
    with np.load(run.samples / "samples.npz") as arrays:
        assert arrays["arr_0"].shape == (50, 8, 8, 1)
        assert arrays["arr_0"].dtype == np.uint8
        assert np.bincount(arrays["arr_1"]).tolist() == [5] * 10
    record = read_rows(run.path / "evaluation.jsonl")[0]
    assert record["metric"] == "FD-digits@50"
    assert record["reference"]["count"] == 1498
    model = json.loads((run.path / "model.json").read_text())
    assert model["parameters"] == sum(model["parts"].values())
    assert json.loads((run.path / "provenance.json").read_text())["starts"][0]["packages"]["torch"]


def test_a_done_run_is_left_alone(uninterrupted: RunDir) -> None:
    def files() -> dict[Path, bytes]:
        return {f: f.read_bytes() for f in uninterrupted.path.rglob("*") if f.is_file()}

    before = files()
    finish_forked(uninterrupted)
    assert files() == before


def test_the_same_config_and_seed_give_the_same_bits(uninterrupted: RunDir, tmp_path: Path) -> None:
    again = make(tmp_path / "again")
    finish_forked(again)
    assert science_of(again) == science_of(uninterrupted)


def test_another_seed_gives_other_numbers(uninterrupted: RunDir, tmp_path: Path) -> None:
    other = make(tmp_path / "other", seed=1)
    finish_forked(other)
    assert science_of(other)["samples"] != science_of(uninterrupted)["samples"]


@pytest.fixture
def folder_run(tmp_path: Path) -> RunDir:
    """A run of a folder of two classes of 30 grey images each."""
    insects = class_folders(tmp_path / "insects", ("ant", "bee"), 30)
    shape = {"channels": 1, "size": 8, "classes": 2}
    data = {"name": "folder", "path": str(insects), **shape}
    return make(tmp_path / "run", data=data, evaluate={"extractor": "digits"})


def test_a_run_of_a_folder_keeps_the_names_of_its_classes(folder_run: RunDir) -> None:
    finish_forked(folder_run)
    assert json.loads((folder_run.path / "classes.json").read_text()) == ["ant", "bee"]
    with Image.open(folder_run.samples / "grid.png") as grid:
        tiles = 5 * 40  # rows of 8 pixels and a margin of 2, enlarged four times
        assert grid.height == tiles + 5 * CAPTION_PIXELS
        captions = np.asarray(grid)[40 : 40 + CAPTION_PIXELS].reshape(CAPTION_PIXELS, 10, 40)
    assert captions.any((0, 2)).all()
    assert (captions[:, 0] == captions[:, 2]).all()  # labels take turns
    assert (captions[:, 0] != captions[:, 1]).any()


def test_a_broken_image_of_the_test_split_stops_a_run_before_it_trains(
    folder_run: RunDir,
) -> None:
    broken = folder_run.path.parent / "insects" / "bee" / "29.png"  # every tenth
    broken.write_bytes(broken.read_bytes()[:50])
    process = start(folder_run)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_FAILED, said
    state = folder_run.state()
    assert state is not None
    assert str(broken) in str(state.error)
    assert not folder_run.checkpoints.exists()


def test_a_torn_evaluation_is_neither_done_nor_in_the_way(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run.path / "evaluation.jsonl").write_text('{"metric": "FD-d')
    assert not run.is_done()
    finish_forked(run)
    rows = read_rows(run.path / "evaluation.jsonl")
    assert [(row["role"], row["metric"]) for row in rows] == [
        ("run", "FD-digits@50"),
        ("floor", "FD-digits@50"),
    ]


def test_an_empty_state_is_no_state(tiny_run: RunDir) -> None:
    (tiny_run.path / "state.json").write_text("")
    assert tiny_run.state() is None


def test_a_run_counts_its_interruptions_and_not_its_errors(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    Session(run).end(stopped="SIGTERM")
    Session(run).end(error="ValueError: no")
    assert Session(run).state.interruptions == 1


def test_a_run_that_is_being_executed_is_left_alone(tiny_run: RunDir) -> None:
    with tiny_run.lease():
        assert tiny_run.is_leased()
        process = start(tiny_run)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_BUSY
    assert "is being executed by process" in output
    assert "Traceback" not in output


def test_an_infinite_loss_stops_the_run_and_says_so(tmp_path: Path) -> None:
    # a checkpoint is due before the next row of metrics: it must not keep the broken state
    run = make(tmp_path / "hot", train={"checkpoint_every": 3})
    # weights this large are what a diverged run comes to
    script = (
        "import torch, mpdit.training.trainer as t; from mpdit.commandline.door import main\n"
        "build = t.build_model\n"
        "def broken(*a):\n"
        "    model = build(*a); torch.nn.init.constant_(model.final.linear.weight, 1e30)\n"
        "    return model\n"
        "t.build_model = broken\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run", run.path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == EXIT_FAILED, done.stderr
    state = run.state()
    assert state is not None
    assert "the loss is" in str(state.error)
    assert not list(run.checkpoints.glob("*.pt"))
    assert "Traceback" not in done.stderr


def run_out_of_memory() -> None:
    import torch

    import mpdit.training.trainer

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    mpdit.training.trainer.Trainer.train_step = fail  # type: ignore[method-assign]


def test_a_device_without_room_ends_the_run_in_one_message_that_says_what_takes_less(
    tmp_path: Path,
) -> None:
    run, said = make(tmp_path / "run"), tmp_path / "said.txt"
    process = fork(run, said, prepare=run_out_of_memory)
    process.join(timeout=60)
    assert process.exitcode == EXIT_FAILED
    state = run.state()
    assert state is not None
    assert "Tried to allocate 2.00 GiB. To use less, set train.micro_batch" in str(state.error)
    assert said.read_text().count(str(state.error)) == 1
    assert "Traceback" not in said.read_text()


def break_the_test_split() -> None:
    from mpdit.data import datasets

    load = datasets.load_digits

    def broken(data: object, split: str) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = load(data, split)  # type: ignore[arg-type]
        return pixels, labels + (split == "test")

    datasets.load_digits = broken  # type: ignore[assignment]


def test_what_is_read_after_training_is_looked_at_before(tmp_path: Path) -> None:
    run, said = make(tmp_path / "run"), tmp_path / "said.txt"
    process = fork(run, said, prepare=break_the_test_split)
    process.join(timeout=60)
    assert process.exitcode == EXIT_FAILED
    assert "the test split of digits: labels go from 1 to 10, but there are 10" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert not (run.path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no config.yaml"),
        ("", "config.yaml is empty"),
        ("model: [", "config.yaml:2: not valid YAML"),
        ("model: {width: 3}", "config.yaml:1: model.depth: required, but not set"),
        ("- 1", "should be a mapping of keys to values, not [1]"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_in_one_line(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "mpdit.run", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == EXIT_USAGE
    assert str(tmp_path) in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
