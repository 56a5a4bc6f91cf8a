"""A started run whose config or data were changed is refused in one line that says what differs."""

import shutil
from pathlib import Path

import pytest

from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_FAILED
from mpdit.runtime.session import Session
from mpdit.training import checkpoint
from tests.helpers.images import class_folders
from tests.helpers.interrupted import finish_forked, fork
from tests.helpers.tiny import make, tiny_config


def refusal(run: RunDir, folder: Path) -> str:
    """What the run ends with."""
    said = folder / "said.txt"
    process = fork(run, said)
    process.join(timeout=120)
    assert process.exitcode == EXIT_FAILED, said.read_text()
    assert "Traceback" not in said.read_text()
    state = run.state()
    assert state is not None
    assert said.read_text().count(str(state.error)) == 1
    return str(state.error)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that was stopped in training; the mark is what a run that trains writes."""
    run = make(tmp_path_factory.mktemp("study") / "run")
    checkpoint.save(run.checkpoints, 10, {"step": 10}, Session(run).identity.mark())
    return run


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"cosine_attention": True}}, "model.cosine_attention=false, config.yaml says t"),
        ({"seed": 7}, "seed=0, config.yaml says 7"),
        ({"train": {"batch_size": 16}}, "train.batch_size=8, config.yaml says 16"),
        ({"train": {"adam_betas": [0.5, 0.9]}}, "train.adam_betas=[0.9, 0.99], config.yaml says"),
        ({"model": {"width": 32}}, "model.width=16, config.yaml says 32"),
    ],
    ids=["a flag", "seed", "batch", "betas", "shape"],
)
def test_a_changed_config_is_refused_by_the_keys_that_differ(
    half: RunDir, changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    run = RunDir(Path(shutil.copytree(half.path, tmp_path / "run")))
    run.write_config(tiny_config(**changes))
    said = refusal(run, tmp_path)
    where = f"{run.path}: checkpoints/step_00000010.pt was trained with "
    assert said.startswith(where + named)
    assert said.endswith("Restore config.yaml, or submit the grid again for a new run")


def test_a_folder_named_after_another_id_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "A_s0-0123456789ab")
    said = refusal(run, tmp_path)
    assert "the folder's name ends in the id 0123456789ab, config.yaml describes the run" in said


def test_data_that_changed_under_a_started_run_are_refused(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "images", ("a", "b"), 20)
    shape = {"channels": 1, "size": 8, "classes": 2}
    data = {"name": "folder", "path": str(images), **shape}
    run = make(tmp_path / "run", data=data, evaluate={"extractor": "digits"})
    finish_forked(run)
    assert checkpoint.newest_mark(run.checkpoints) is not None
    (run.path / "evaluation.jsonl").unlink()
    (tmp_path / "images" / "a").rename(tmp_path / "images" / "z")
    said = refusal(run, tmp_path)
    assert "checkpoints/step_00000024.pt was trained with data of the hash" in said
    assert "Restore the data, or delete the run's folder" in said
    (tmp_path / "images" / "z").rename(tmp_path / "images" / "a")
    finish_forked(run)
