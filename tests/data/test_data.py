"""A batch is a function of (seed, step), whatever is asked for and wherever it comes from."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from mpdit.config import DataConfig, RunConfig
from mpdit.data import datasets
from mpdit.data.datasets import latent_store
from mpdit.diffusion.objectives import objective_of
from mpdit.diffusion.process import Diffusion
from mpdit.errors import ConfigError
from mpdit.runtime.randomness import generator
from mpdit.training.batches import AHEAD, Batches, _HeldLatents
from mpdit.training.probe import IMAGES, Probe
from tests.helpers.latents import make_store
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")


def same(a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def latents_config(path: Path, **changes: object) -> RunConfig:
    data = {"name": "latents", "path": str(path), "channels": 4, "size": 8, "classes": 3}
    return tiny_config(data=data, **changes)


def folder_config(path: Path, **changes: object) -> RunConfig:
    data = {"name": "folder", "path": str(path), "channels": 3, "size": 8, "classes": 2}
    return tiny_config(data=data, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", images=50)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of 25 images, each of one colour: red 10 × its number, green 100 × its class."""
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(25):
            image = Image.new("RGB", (12, 9), (10 * number, 100 * label, 7))
            image.save(tmp_path / "pictures" / name / f"{number:02}.png")
    return tmp_path / "pictures"


@pytest.fixture(params=["digits", "latents", "folder"])
def config(request: pytest.FixtureRequest, store: Path, pictures: Path) -> RunConfig:
    train = {"train": {"batch_size": 20}}
    if request.param == "digits":
        return tiny_config(**train)
    if request.param == "latents":
        return latents_config(store, **train)
    return folder_config(pictures, **train)


def test_a_batch_depends_on_seed_and_step_only(config: RunConfig) -> None:
    walked, jumped = Batches(config, CPU), Batches(config, CPU)
    for step in range(1, 12):
        expected = walked.batch(step)
    assert same(expected, jumped.batch(11))
    assert same(walked.batch(3), jumped.batch(3))
    other = Batches(config.model_copy(update={"seed": 1}), CPU).batch(11)
    assert not torch.equal(other[0], expected[0])


def test_rows_are_the_same_bits_through_whatever_slice_they_are_asked_for(
    config: RunConfig,
) -> None:
    whole = Batches(config, CPU)
    ranks = [Batches(config, CPU) for _ in range(3)]
    for step in (1, 2, 3, 7):
        x0, y = whole.batch(step)
        assert x0.dtype == torch.float32
        assert y.dtype == torch.int64
        for rank, rows in zip(ranks, (slice(0, 6), slice(6, 13), slice(13, 20)), strict=True):
            assert same(rank.batch(step, rows), (x0[rows], y[rows]))
            micro = slice(rows.start, rows.start + 1)
            assert same(rank.batch(step, micro), (x0[micro], y[micro]))


def test_every_image_is_seen_once_an_epoch_and_batches_run_on_across_its_end() -> None:
    batches = Batches(tiny_config(train={"batch_size": 1000}), CPU)
    n = len(batches)
    rows = torch.cat([batches._rows(step) for step in range(1, 3 * n // 1000 + 2)])[: 3 * n]
    assert torch.bincount(rows, minlength=n).tolist() == [3] * n


def test_a_batch_may_be_larger_than_the_data(store: Path) -> None:
    batches = Batches(latents_config(store, train={"batch_size": 120}), CPU)
    assert batches.batch(1)[0].shape == (120, 4, 8, 8)
    assert sorted(torch.bincount(batches._rows(1)).tolist()) == [2] * 30 + [3] * 20


def test_latents_have_zero_mean_and_unit_variance_per_channel(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", images=400)
    x0, _ = Batches(latents_config(store, train={"batch_size": 400}), CPU).batch(1)
    assert x0.mean((0, 2, 3)).abs().max() < 0.15  # as far as the orientations balance
    assert (x0.std((0, 2, 3)) - 1).abs().max() < 0.02


def test_latents_are_drawn_anew_at_every_visit_in_one_of_both_orientations(store: Path) -> None:
    """The store's second orientation is the mirrored first, plus 100; its stds are 1/100."""
    config = latents_config(store, train={"batch_size": 50})
    batches = Batches(config, CPU)
    held = latent_store(config.data)
    mean, std = (
        torch.tensor(values).view(-1, 1, 1) for values in (held.manifest.mean, held.manifest.std)
    )
    for step in (1, 2):
        x0, y = batches.batch(step)
        rows, flips = batches._rows(step), batches._flips(step)
        moments = torch.from_numpy(held.read(rows.numpy(), flips.numpy())).float()
        noise = (x0 * std + mean - moments[:, 0]) / moments[:, 1]
        assert noise.mean().abs() < 0.05
        assert noise.std() == pytest.approx(1, abs=0.05)
        assert y.tolist() == held.labels[rows].tolist()
        assert 10 < flips.sum() < 40
    assert not torch.equal(batches._flips(1), batches._flips(2))


def test_latents_held_on_the_device_are_the_same_bits_as_those_read_from_disk(store: Path) -> None:
    config = latents_config(store, train={"batch_size": 20})
    read, held = Batches(config, CPU), Batches(config, CPU)
    held.source = _HeldLatents(latent_store(config.data), CPU)
    for step in (1, 2, 3, 4):
        assert same(read.batch(step), held.batch(step))
        assert same(read.batch(step, slice(3, 5)), held.batch(step, slice(3, 5)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_store_that_fits_is_held_on_a_gpu(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = latents_config(store, train={"batch_size": 20})
    gpu = torch.device("cuda")
    held = Batches(config, gpu)
    assert isinstance(held.source, _HeldLatents)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1, 1))
    read = Batches(config, gpu)
    assert not isinstance(read.source, _HeldLatents)
    assert same(held.batch(3), read.batch(3))
    assert held.batch(3)[0].is_cuda


def test_the_next_steps_are_read_ahead_and_what_nobody_asks_for_is_dropped(store: Path) -> None:
    batches = Batches(latents_config(store, train={"batch_size": 20}), CPU)
    for step in (5, 6, 7, 20, 40):
        batches.batch(step, slice(0, 4))
        batches.batch(step, slice(4, 8))
        later = range(step + 1, step + 1 + AHEAD)
        assert sorted(batches._ahead) == [(s, *rows) for s in later for rows in ((0, 4), (4, 8))]


def test_an_image_folder_is_read_as_pixels_with_every_tenth_of_a_class_left_out(
    pictures: Path,
) -> None:
    batches = Batches(folder_config(pictures, train={"batch_size": 46}), CPU)
    assert len(batches) == 46  # of 25 in a class, numbers 9 and 19 are for testing
    x0, y = batches.batch(1)
    red, green = (((x0[:, channel, 0, 0] + 1) * 127.5).round() for channel in (0, 1))
    assert torch.equal(green, 100.0 * y)
    numbers = sorted((red[y == 1] / 10).int().tolist())
    assert numbers == [n for n in range(25) if n not in (9, 19)]


def test_an_image_that_cannot_be_read_is_named(pictures: Path) -> None:
    (pictures / "bee" / "03.png").write_bytes(b"no image")
    batches = Batches(folder_config(pictures, train={"batch_size": 46}), CPU)
    with pytest.raises(ConfigError, match=r"bee/03\.png cannot be read"):
        batches.batch(1)


def test_the_probe_works_on_latents_as_on_images(config: RunConfig) -> None:
    probe = Probe.of_run(config, Batches(config, CPU), objective_of(config, Diffusion()))
    again = Probe.of_run(config, Batches(config, CPU), objective_of(config, Diffusion()))
    assert torch.equal(probe.x, again.x)
    assert len(probe.y) == min(IMAGES, len(Batches(config, CPU)))
    assert probe.x.isfinite().all()


def test_every_purpose_and_index_has_a_stream_of_its_own() -> None:
    streams = [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]
    drawn = [torch.randn(4, generator=generator(*stream)) for stream in streams]
    again = [torch.randn(4, generator=generator(*stream)) for stream in streams]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert len({tuple(values.tolist()) for values in drawn}) == len(streams)


def test_digits_are_the_batches_they_were() -> None:
    """Seed 0, step 3: what runs that have begun go on with."""
    _, y = Batches(tiny_config(), CPU).batch(3)
    order = torch.randperm(1498, generator=generator(0, "epoch", 0))
    labels = datasets.load(DataConfig(name="digits"), "train").labels
    assert y.tolist() == labels[order[16:24].numpy()].tolist()
