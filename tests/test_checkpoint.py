import json
from pathlib import Path

import pytest
import torch

from mpdit import checkpoint

CPU = torch.device("cpu")


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, {"step": step, "w": torch.full((3,), float(step))})


def test_the_newest_two_checkpoints_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    assert sorted(file.name for file in tmp_path.glob("*.pt")) == [
        "step_00000002.pt",
        "step_00000003.pt",
    ]
    loaded = checkpoint.load_newest(tmp_path, CPU, pytest.fail)
    assert loaded is not None
    assert loaded["step"] == 3
    assert loaded["w"].tolist() == [3, 3, 3]


@pytest.mark.parametrize("damage", ["torn", "flipped", "unfinished", "empty sum"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: str
) -> None:
    save(tmp_path, 1, 2)
    newest = tmp_path / "step_00000002.pt"
    content = newest.read_bytes()
    if damage == "torn":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        newest.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "unfinished":
        newest.with_suffix(".json").unlink()
    else:
        newest.with_suffix(".json").write_text("")
    warnings: list[str] = []
    loaded = checkpoint.load_newest(tmp_path, CPU, warnings.append)
    assert loaded is not None
    assert loaded["step"] == 1
    assert "step_00000002.pt" in warnings[0]


def test_without_any_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path, CPU, pytest.fail) is None


def test_damaged_checkpoints_of_later_steps_do_not_outlive_new_ones(tmp_path: Path) -> None:
    save(tmp_path, 100, 200)
    for file in tmp_path.glob("*.pt"):
        file.write_bytes(b"")
    assert checkpoint.load_newest(tmp_path, CPU, lambda _: None) is None
    save(tmp_path, 50)
    loaded = checkpoint.load_newest(tmp_path, CPU, pytest.fail)
    assert loaded is not None
    assert loaded["step"] == 50


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "step_00000001.json",
        "step_00000001.pt",
    ]
    assert json.loads((tmp_path / "step_00000001.json").read_text())["step"] == 1
