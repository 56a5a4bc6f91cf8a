"""A sample set on disk is the same whatever its batches, processes and interruptions."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit.data.datasets import images_by_class
from mpdit.disk.rundir import RunDir
from mpdit.ema.posthoc import profile_error, reconstruct
from mpdit.ema.power import snapshot_file
from mpdit.errors import ConfigError
from mpdit.runtime.session import Interrupted, Session
from mpdit.sampling.drawing import Drawing, labels
from mpdit.sampling.sampler import draw_set, load_average, samples_file
from mpdit.sampling.sampleset import write_grid
from tests.helpers.processes import finish, start
from tests.helpers.samples import arrays, drawn
from tests.helpers.tiny import tiny_config
from tests.helpers.trained import talking_model

CPU = torch.device("cpu")


def test_a_set_is_the_same_in_batches_of_any_size(run: RunDir) -> None:
    session = Session(run, recorded=False)
    drawing = Drawing.of_run(run.config())
    drawing = replace(drawing, images=images_by_class(drawing.run.data))
    whole, expected = drawn(run, images=drawing.images), labels(drawing)
    for size in (50, 7):
        config = tiny_config(sample={"batch_size": size})
        out = run.path.parent / f"{size}.npz"
        draw_set(config, session, drawing, CPU, out=out)
        images, classes = arrays(out)
        assert np.abs(images.astype(int) - whole).max() <= 1
        assert classes.tolist() == expected.tolist()
        assert not out.with_suffix(".shards").exists()


def test_an_interrupted_set_is_resumed_and_other_sets_keep_away(
    run: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    config = run.config()
    drawing = Drawing.of_run(config)

    class Stopped(Session):
        def advance(self, step: int, images: float, loss: float | None = None) -> None:
            del images, loss
            if step == 9:  # one step into the third of three batches of four steps
                self.stop_signal = 15

    with pytest.raises(Interrupted):
        draw_set(config, Stopped(run, recorded=False), drawing, CPU)
    assert not samples_file(run).exists()
    kept = sorted(run.samples.rglob("shard_*"))
    assert len(kept) == 2
    np.save(kept[0], np.full_like(np.load(kept[0]), 77))  # to see that it is not drawn again

    other = replace(drawing, guidance=3.0)
    with pytest.raises(ConfigError, match="part of another sample set"):
        draw_set(config, Session(run, recorded=False), other, CPU, out=samples_file(run))
    with caplog.at_level("INFO", logger="mpdit"):
        file = draw_set(config, Session(run, recorded=False), drawing, CPU)
    assert "resuming after 2 of 3 batches" in caplog.text
    images, whole = arrays(file)[0], drawn(run)
    assert (images[:20] == 77).all()
    assert np.abs(images[20:].astype(int) - whole[20:]).max() <= 1
    assert sorted(file.name for file in run.samples.iterdir()) == ["grid.png", "samples.npz"]


@pytest.mark.long
def test_two_processes_draw_the_set_of_one(run: RunDir, tmp_path: Path) -> None:
    own, one, two = drawn(run), tmp_path / "one.npz", tmp_path / "two.npz"
    for out, processes in ((one, 1), (two, 2)):
        program = [sys.executable, "-m", "mpdit.sample", str(run.path), "--out", str(out)]
        finish(start([*program, "--batch-size", "8"], processes))
    assert np.array_equal(arrays(one)[0], arrays(two)[0])  # the same batches: the same bits
    assert np.abs(arrays(one)[0].astype(int) - own).max() <= 1


def test_a_width_that_the_snapshots_cannot_give_is_drawn_with_a_warning(
    run: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    load_average(run, 0.10, 24, CPU)
    assert profile_error(run, 0.10, 24) == 0
    assert not caplog.messages
    snapshot_file(run.ema, 0.10, 12).unlink()
    load_average(run, 0.20, 24, CPU)
    missing, doubt = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert missing == "without std0.100_step00000012.safetensors, which are missing"
    error = f"{profile_error(run, 0.20, 24):.1e}"
    assert f"width 0.2 (relative error of the profile {error}) is doubtful" in doubt


def test_any_width_is_stored_or_reconstructed(run: RunDir) -> None:
    stored = load_average(run, 0.10, 12, CPU)
    assert torch.equal(
        stored.final.linear.weight, talking_model(run.config(), 0).final.linear.weight
    )
    made = load_average(run, 0.07, 24, CPU).state_dict()
    expected = reconstruct(run, 0.07, 24)
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert not torch.equal(made["final.linear.weight"], stored.final.linear.weight)


def test_bfloat16_draws_nearly_the_same_images(run: RunDir) -> None:
    exact, fast = drawn(run), drawn(run, precision="bfloat16")
    difference = np.abs(exact.astype(int) - fast)
    assert difference.max() > 0
    assert difference.mean() < 2


@pytest.mark.slow
def test_compiled_blocks_draw_the_same_images(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "set.npz"
    program = [sys.executable, "-m", "mpdit.sample", str(run.path), "--compile", "--out", str(out)]
    finish(start(program, 1))
    assert np.abs(arrays(out)[0].astype(int) - drawn(run)).max() <= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_precision_that_the_device_lacks_is_refused(run: RunDir) -> None:
    drawing = replace(Drawing.of_run(run.config()), precision="tf32")
    with pytest.raises(ConfigError, match=r"sample\.precision: tf32 needs"):
        draw_set(run.config(), Session(run, recorded=False), drawing, CPU)


@pytest.mark.parametrize(("side", "factor"), [(8, 6), (16, 3), (64, 1), (128, 1)])
def test_small_images_are_enlarged_until_their_class_name_fits(
    tmp_path: Path, side: int, factor: int
) -> None:
    images = np.zeros((10, side, side, 1), dtype=np.uint8)
    write_grid(images, tmp_path / "grid.png", ["triangle"] * 10)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width == 10 * factor * (side + 2)
