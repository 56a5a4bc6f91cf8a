import itertools
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mpdit.errors import explain_os_error
from mpdit.training import checkpoint
from tests.helpers.interrupted import FORKED, signal_at_call

CPU = torch.device("cpu")


def state(step: int, floats: int = 3) -> dict[str, Any]:
    return {"step": step, "w": torch.full((floats,), float(step))}


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, state(step))


def load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    warnings: list[str] = []
    return checkpoint.load_newest(folder, CPU, warnings.append), warnings


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_newest_two_checkpoints_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    assert names(tmp_path) == [f"step_0000000{n}.{kind}" for n in (2, 3) for kind in ("json", "pt")]
    loaded, warnings = load(tmp_path)
    assert loaded is not None
    assert (loaded["step"], loaded["w"].tolist(), warnings) == (3, [3, 3, 3], [])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("torn", "is damaged"),
        ("flipped", "is damaged"),
        ("no sum", "not finished"),
        ("empty sum", "not finished"),
        ("unreadable", "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: str, reason: str
) -> None:
    save(tmp_path, 1, 2)
    newest = tmp_path / "step_00000002.pt"
    content = newest.read_bytes()
    if damage == "torn":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        newest.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "no sum":
        newest.with_suffix(".json").unlink()
    elif damage == "empty sum":
        newest.with_suffix(".json").write_text("")
    else:
        newest.unlink()
        newest.mkdir()
    loaded, warnings = load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert len(warnings) == 1
    assert "step_00000002.pt" in warnings[0]
    assert reason in warnings[0]


def test_without_any_checkpoint_there_is_none_and_nothing_to_say(tmp_path: Path) -> None:
    assert load(tmp_path) == (None, [])


def test_damaged_checkpoints_of_later_steps_do_not_outlive_new_ones(tmp_path: Path) -> None:
    save(tmp_path, 100, 200)
    for file in tmp_path.glob("*.pt"):
        file.write_bytes(b"")
    loaded, warnings = load(tmp_path)
    assert loaded is None
    assert "starts over" in warnings[-1]
    save(tmp_path, 50)
    loaded, _ = load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 50


def test_a_bit_lost_on_the_way_to_the_disk_is_noticed_before_the_old_state_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2)
    before = names(tmp_path)
    synced = os.fsync

    def lossy(descriptor: int) -> None:
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        with file.open("r+b") as handle:
            handle.seek(200)
            byte = handle.read(1)
            handle.seek(200)
            handle.write(bytes([byte[0] ^ 1]))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", lossy)
    with pytest.raises(OSError, match=r"differs from the content written: '.*step_00000003\.pt'"):
        save(tmp_path, 3)
    assert names(tmp_path) == before


def test_without_room_what_was_there_stays_and_the_message_says_how_much_is_wanted(
    tmp_path: Path,
) -> None:
    save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            checkpoint.save(tmp_path, 2, state(2, floats=2_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = explain_os_error(raised.value)
    assert f"cannot write {tmp_path}/step_00000002.pt" in message
    assert "a checkpoint takes 8.0 MB" in message
    assert "MB free" in message
    assert names(tmp_path) == ["step_00000001.json", "step_00000001.pt"]
    assert json.loads((tmp_path / "step_00000001.json").read_text())["step"] == 1


def die_at_every_call(folder: Path) -> None:
    """One process after the other dies a call later, until one lives; each has its own folder."""
    for number in itertools.count(1):
        save(folder / str(number), 1, 2)
        child = os.fork()
        if child == 0:
            signal_at_call(number, signal.SIGKILL, lambda: save(folder / str(number), 3))  # noqa: B023
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


def test_a_save_killed_before_any_of_its_calls_costs_no_whole_checkpoint(tmp_path: Path) -> None:
    process = FORKED.Process(target=die_at_every_call, args=(tmp_path,))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0
    steps = []
    for folder in sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name)):
        loaded, warnings = load(folder)
        assert loaded is not None
        assert torch.equal(loaded["w"], state(loaded["step"])["w"])
        assert warnings == []
        steps.append(loaded["step"])
        save(folder, 3)
        assert names(folder) == [
            f"step_0000000{n}.{kind}" for n in (2, 3) for kind in ("json", "pt")
        ]
    assert len(steps) > 30
    assert steps == sorted(steps)  # the old one, then the new one
    assert set(steps) == {2, 3}
