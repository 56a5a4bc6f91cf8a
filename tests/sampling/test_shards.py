"""What of a sample set is damaged or of another run is drawn again or refused, and that is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mpdit.disk import npz
from mpdit.disk.identity import Identity
from mpdit.disk.rundir import RunDir
from mpdit.ema.power import snapshot_file, write_snapshot
from mpdit.errors import ConfigError
from mpdit.evaluation.evaluation import Evaluation
from mpdit.runtime.session import Interrupted, Session
from mpdit.sampling.drawing import Drawing
from mpdit.sampling.sampler import draw_set, load_average, samples_file
from mpdit.training import checkpoint
from tests.helpers.tiny import tiny_config
from tests.helpers.trained import DATA, trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that was stopped when two of its three batches of samples were drawn."""
    run = trained(tmp_path_factory.mktemp("study") / "run")

    class Stopped(Session):
        def advance(self, step: int, images: float, loss: float | None = None) -> None:
            del images, loss
            if step == 9:
                self.stop_signal = 15

    with pytest.raises(Interrupted):
        draw_set(run.config(), Stopped(run, recorded=False), Drawing.of_run(run.config()), CPU)
    return run


@pytest.fixture(scope="module")
def whole(half: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = copy(half, tmp_path_factory.mktemp("study"))
    draw(run)
    return run


def copy(run: RunDir, folder: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(run.path, folder / "copy")))


def draw(run: RunDir) -> Path:
    config = run.config()
    return draw_set(config, Session(run, recorded=False), Drawing.of_run(config), CPU)


def images(run: RunDir) -> np.ndarray:
    with np.load(samples_file(run)) as arrays:
        found: np.ndarray = arrays["arr_0"]
    return found


def shards(run: RunDir) -> list[Path]:
    return sorted(run.samples.rglob("shard_*"))


def zero_the_tail(file: Path, count: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-count] + b"\0" * count)


def test_numpy_reads_a_shard_without_its_checksum(half: RunDir) -> None:
    assert np.load(shards(half)[0]).shape == (20, 8, 8, 1)


@pytest.mark.parametrize(
    "damage",
    ["zeros in the tail", "zeros before the checksum", "half", "empty", "another batch"],
)
def test_a_damaged_shard_is_drawn_again_and_named(
    half: RunDir, whole: RunDir, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copy(half, tmp_path)
    shard = shards(run)[1]
    content = shard.read_bytes()
    if damage == "zeros in the tail":
        zero_the_tail(shard, 500)
    elif damage == "zeros before the checksum":
        shard.write_bytes(content[:-100] + b"\0" * 68 + content[-32:])
    elif damage == "half":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        shard.write_bytes(b"")
    else:
        np.save(shard, np.zeros((3, 8, 8, 1), np.uint8))
    draw(run)
    assert np.array_equal(images(run), images(whole))
    (said,) = [message for message in caplog.messages if "damaged" in message]
    assert said.startswith(f"{shard} is damaged: ")
    assert said.endswith("it is drawn again")


def test_shards_of_version_01_are_gone_on_with(half: RunDir, tmp_path: Path) -> None:
    """They have no checksums, and set.json has the first eight digits of the id and no data."""
    run = copy(half, tmp_path)
    described = shards(run)[0].with_name("set.json")
    told = json.loads(described.read_text())
    assert told.pop("data") == DATA
    described.write_text(json.dumps({**told, "run": told["run"][:8]}))
    np.save(shards(run)[0], np.full((20, 8, 8, 1), 77, np.uint8))
    draw(run)
    assert (images(run)[:20] == 77).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0" * 90, "is damaged"),
        (b"\x80", "is damaged"),
        (b"null", "is damaged"),
        (None, "has what this version does not know (colour)"),
    ],
)
def test_batches_that_nobody_can_say_the_set_of_are_drawn_again(
    half: RunDir,
    whole: RunDir,
    content: bytes | None,
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = copy(half, tmp_path)
    described = shards(run)[0].with_name("set.json")
    newer = json.dumps({**json.loads(described.read_bytes()), "colour": "blue"}).encode()
    described.write_bytes(newer if content is None else content)
    np.save(shards(run)[0], np.full((20, 8, 8, 1), 77, np.uint8))
    draw(run)
    assert np.array_equal(images(run), images(whole))
    assert f"{described} {reason}: the batches beside it are drawn again" in caplog.messages


@pytest.mark.parametrize("damage", ["half", "zeros in the tail", "no archive"])
def test_a_damaged_set_is_drawn_again(
    whole: RunDir, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copy(whole, tmp_path)
    file = samples_file(run)
    if damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "zeros in the tail":
        zero_the_tail(file, 300)
    else:
        file.write_bytes(b"\0" * 1000)
    draw(run)
    assert np.array_equal(images(run), images(whole))
    assert f"{file} is damaged" in caplog.text


def test_images_that_turn_out_damaged_when_they_are_measured_are_drawn_again(
    whole: RunDir, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))
    run = copy(whole, tmp_path)
    file = samples_file(run)
    content = bytearray(file.read_bytes())
    content[400:500] = bytes(100)
    file.write_bytes(content)
    config = run.config()
    rows = Evaluation(config, Session(run, recorded=False), CPU).missing(Drawing.of_run(config))
    assert np.array_equal(images(run), images(whole))
    assert f"{file} is damaged" in caplog.text
    assert rows[0]["identity"] == {"run": config.id, "data": DATA}


def test_a_set_says_which_run_and_data_it_is_of(whole: RunDir) -> None:
    own = whole.config()
    assert npz.contents(samples_file(whole)).mark == Identity.of(own, DATA).mark()


def test_a_set_of_another_run_is_refused_and_the_difference_named(
    whole: RunDir, tmp_path: Path
) -> None:
    run = copy(whole, tmp_path)
    run.write_config(tiny_config(sample={"guidance": 3.0}))
    with pytest.raises(ConfigError, match=r"was drawn with sample.guidance=1.5, config.yaml says"):
        draw(run)
    samples_file(run).unlink()
    with pytest.raises(ConfigError, match=r"was trained with sample.guidance=1.5, config.yaml"):
        draw(run)


def test_a_damaged_snapshot_is_replaced_by_the_checkpoints_average(
    half: RunDir, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copy(half, tmp_path)
    file = snapshot_file(run.ema, 0.05, 24)
    model = load_average(run, 0.05, 24, CPU)
    zero_the_tail(file, 64)
    with pytest.raises(ConfigError, match=r"is damaged \(.* is not what was written\)"):
        load_average(run, 0.05, 24, CPU)
    averages = {"0.05": list(model.parameters())}
    state = {"step": 24, "model": model.state_dict(), "ema": averages}
    checkpoint.save(run.checkpoints, 24, state)  # as a conversion writes it: of the raw weights
    with pytest.raises(ConfigError, match="is damaged"):
        load_average(run, 0.05, 24, CPU)
    checkpoint.save(run.checkpoints, 24, {**state, "rows": {}})
    again = load_average(run, 0.05, 24, CPU).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    assert f"{file} is damaged" in caplog.text
    assert "the average is taken from the checkpoint of step 24" in caplog.text


def test_a_snapshot_of_version_01_has_no_checksums_and_is_read(
    half: RunDir, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    run = copy(half, tmp_path)
    file = snapshot_file(run.ema, 0.05, 24)
    state = load_file(file)
    save_file(state, file)
    found = load_average(run, 0.05, 24, CPU).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_the_same_snapshot_is_the_same_bytes(tmp_path: Path) -> None:
    tensors = {f"w{i}": torch.arange(5.0) + i for i in range(20)}
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        write_snapshot(file, tensors, Identity.of(tiny_config(), DATA).mark())
    assert files[0].read_bytes() == files[1].read_bytes()
