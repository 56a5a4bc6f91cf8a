"""A sample set is a function of what it is said to be: not of batches, processes, interruptions."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit import sample
from mpdit.catalogue import SOLVERS
from mpdit.catalogue.respacing import even_timesteps
from mpdit.data.datasets import images_by_class
from mpdit.data.latents import LatentSource, Manifest
from mpdit.disk import npz
from mpdit.disk.files import append_row
from mpdit.disk.rundir import RunDir, RunState
from mpdit.ema.posthoc import profile_error, reconstruct
from mpdit.ema.power import snapshot_file, write_snapshot
from mpdit.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, ConfigError
from mpdit.model import DiT
from mpdit.runtime.session import Interrupted, Session
from mpdit.sampling.drawing import Drawing, draw, labels
from mpdit.sampling.sampler import draw_set, load_average, samples_file
from mpdit.sampling.sampleset import to_uint8
from mpdit.training.trainer import build_model
from tests.helpers.processes import finish, start
from tests.helpers.tiny import tiny_config
from tests.helpers.trained import talking_model, trained

CPU = torch.device("cpu")


@pytest.mark.parametrize("respacing", ["dit", "nearest"])
def test_a_set_is_drawn_at_the_timesteps_that_its_respacing_says(
    respacing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def guided(_: DiT, x: torch.Tensor, t: torch.Tensor, *__: object) -> torch.Tensor:
        asked.insert(0, int(t[0]))
        return torch.cat((x, torch.zeros_like(x)), dim=1)

    monkeypatch.setattr(DiT, "guided", guided)
    config = tiny_config(sample={"steps": 27, "respacing": respacing})
    draw(build_model(config, CPU), Drawing.of_run(config), range(2), CPU)
    assert tuple(asked) == even_timesteps(27, respacing)


LEVEL = 1 / 127.5
"""One of 256 grey levels."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return trained(tmp_path / "study" / "run")


def arrays(file: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(file) as opened:
        return opened["arr_0"], opened["arr_1"]


def drawn(run: RunDir, **changes: object) -> np.ndarray:
    """A whole set in memory."""
    drawing = replace(Drawing.of_run(run.config()), **changes)
    model = load_average(run, drawing.ema_std, drawing.snapshot, CPU)
    model.fold()
    x = draw(model, drawing, range(drawing.count), CPU)
    return to_uint8(x.numpy(), drawing.to_uint8)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mpdit.sample", *map(str, arguments)])
    return sample.main()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_is_the_same_image_whatever_it_is_batched_with(solver: str) -> None:
    config = tiny_config(sample={"solver": solver, "steps": 8})
    drawing, model = Drawing.of_run(config), talking_model(config)
    together = draw(model, drawing, range(6), CPU)
    alone = torch.cat([draw(model, drawing, range(i, i + 1), CPU) for i in range(6)])
    # one batch's sums round otherwise than another's, far below one of 256 levels
    torch.testing.assert_close(alone, together, rtol=0, atol=LEVEL / 50)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_noise_of_a_sample_is_the_same_bits_whatever_it_is_batched_with(solver: str) -> None:
    config = tiny_config(sample={"solver": solver, "steps": 8})
    drawing = Drawing.of_run(config)
    silent = build_model(config, CPU)  # its output is zero: nothing rounds by the batch
    together = draw(silent, drawing, range(6), CPU)
    alone = [draw(silent, drawing, range(i, i + 1), CPU) for i in range(6)]
    assert torch.equal(torch.cat(alone), together)
    assert len(together.flatten(1).unique(dim=0)) == 6


def test_a_set_is_called_by_what_differs_from_the_runs_own() -> None:
    config = tiny_config(evaluate={"repeats": 3})
    own = Drawing.of_run(config)
    assert own.name == "samples"
    assert Drawing.of_run(config, 2).name == "repeat2"
    assert replace(own, guidance=2.0, ema_std=0.07).name == "samples_guidance2_ema0.07"
    other = replace(own, solver="dpm++", steps=20, precision="bfloat16", classes=(3, 7))
    assert other.name == "samples_dpmpp_steps20_bfloat16_classes3-7"
    assert replace(Drawing.of_run(config, 1), snapshot=12).name == "repeat1_at12"


def test_a_record_says_how_the_set_was_drawn() -> None:
    own = Drawing.of_run(tiny_config(seed=3))
    expected = {
        "sampler": "ddpm",
        "steps": 4,
        "guidance": 1.5,
        "ema_std": 0.05,
        "seed": 3,
        "precision": "float32",
        "to_uint8": "round",
        "snapshot": 24,
        "labels": "data",
    }
    assert own.record() == expected
    assert replace(own, classes=(1,)).record() == {**expected, "classes": (1,)}


def test_repeats_have_sampling_seeds_of_their_own() -> None:
    seeds = {
        Drawing.of_run(tiny_config(seed=seed), repeat).seed
        for seed in range(5)
        for repeat in range(5)
    }
    assert len(seeds) == 25
    assert Drawing.of_run(tiny_config(seed=4)).seed == 4


def of_images(how: str, images: tuple[int, ...] | None, count: int = 8) -> Drawing:
    own = Drawing.of_run(tiny_config(sample={"labels": how, "count": count}))
    classes = tuple(range(len(images or range(10))))
    return replace(own, images=images, classes=classes)


@pytest.mark.parametrize("how", ["data", "even"])
def test_labels_take_turns_where_classes_have_as_many_images(how: str) -> None:
    drawing = replace(of_images(how, (4,) * 10, 5), classes=(5, 1, 7))
    assert labels(drawing).tolist() == [5, 1, 7, 5, 1]


@pytest.mark.parametrize("images", [(90, 10), (1, 2, 3, 4), (500, 1, 0, 37, 37, 12), (7, 0, 7)])
def test_labels_follow_the_proportions_of_the_train_split(images: tuple[int, ...]) -> None:
    total = sum(images)
    drawn = labels(of_images("data", images, total))
    assert np.bincount(drawn, minlength=len(images)).tolist() == list(images)
    for count in (1, 2, 5, 10, total // 2):
        first = labels(of_images("data", images, count))
        assert first.tolist() == drawn[:count].tolist()
        part = np.bincount(first, minlength=len(images))
        assert np.abs(part - count * np.array(images) / total).max() < 1


@pytest.mark.parametrize("how", ["data", "even", "uniform"])
def test_a_class_without_images_is_never_drawn(how: str) -> None:
    drawn = labels(of_images(how, (3, 0, 2, 0, 9), 500))
    assert set(drawn.tolist()) == {0, 2, 4}
    nothing = replace(of_images(how, (3, 0, 2)), classes=(1,))
    with pytest.raises(ConfigError, match="no image of class 1"):
        labels(nothing)


def test_uniform_labels_are_independent_of_their_number_and_as_likely() -> None:
    drawn = labels(of_images("uniform", (1, 99, 50), 30_000))
    assert np.abs(np.bincount(drawn) / 30_000 - 1 / 3).max() < 0.01
    for count in (1, 7, 1000):
        assert labels(of_images("uniform", (1, 99, 50), count)).tolist() == drawn[:count].tolist()


def test_a_run_is_sampled_in_the_proportions_of_its_train_split(run: RunDir) -> None:
    images = images_by_class(run.config().data)
    assert run.config().sample.labels == "data"
    config = run.config()
    file = draw_set(config, Session(run, recorded=False), Drawing.of_run(config), CPU)
    found = npz.labels(file)
    expected = labels(replace(Drawing.of_run(run.config()), images=images))
    assert found.tolist() == expected.tolist()


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


def test_an_interrupted_set_goes_on_and_other_sets_keep_away(
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
        assert command(broken, *arguments) == EXIT_FAILED
    assert (tmp_path / "set.shards" / "set.json").exists()
    assert command(monkeypatch, *arguments[:1], "--count", 13, "--out", out) == EXIT_USAGE
    assert "part of another sample set" in capsys.readouterr().err
    assert command(monkeypatch, *arguments) == EXIT_DONE
    assert np.array_equal(arrays(out)[0], drawn(run, count=12))
    assert sorted(file.name for file in tmp_path.glob("set*")) == ["set.npz", "set.png"]


def test_two_processes_draw_the_set_of_one(run: RunDir, tmp_path: Path) -> None:
    own, one, two = drawn(run), tmp_path / "one.npz", tmp_path / "two.npz"
    for out, processes in ((one, 1), (two, 2)):
        program = [sys.executable, "-m", "mpdit.sample", str(run.path), "--out", str(out)]
        finish(start([*program, "--batch-size", "8"], processes))
    assert np.array_equal(arrays(one)[0], arrays(two)[0])  # the same batches: the same bits
    assert np.abs(arrays(one)[0].astype(int) - own).max() <= 1


CTRL_C_WHILE_TORCH_IS_IMPORTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""


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
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = talking_model(run.config())
    torch.nn.init.constant_(broken.final.linear.weight, float("inf"))
    write_snapshot(snapshot_file(run.ema, 0.05, 24), broken.state_dict())
    out = tmp_path / "set.npz"
    assert command(monkeypatch, run.path, "--count", 12, "--out", out) == EXIT_FAILED
    said = capsys.readouterr().err.splitlines()[-1]
    assert "samples 0-11 of samples_count12 are not finite numbers (EMA width 0.05, step" in said
    assert not out.exists()


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


def test_guidance_in_bfloat16_is_of_float32_numbers() -> None:
    model = talking_model(tiny_config())
    random = torch.Generator().manual_seed(0)
    x, t, y = (
        torch.randn(2, 1, 8, 8, generator=random),
        torch.tensor([3, 900]),
        torch.tensor([1, 2]),
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        own, null = model(x, t, y), model(x, t, torch.full_like(y, model.null_class))
        guided = model.guided(x, t, y, 4.0)
    assert own.dtype == torch.bfloat16
    expected = null[:, :1].float() + 4 * (own[:, :1].float() - null[:, :1].float())
    torch.testing.assert_close(guided[:, :1], expected, rtol=1e-5, atol=1e-6)


def test_any_width_is_stored_or_reconstructed(run: RunDir) -> None:
    stored = load_average(run, 0.10, 12, CPU)
    assert torch.equal(
        stored.final.linear.weight, talking_model(run.config(), 0).final.linear.weight
    )
    made = load_average(run, 0.07, 24, CPU).state_dict()
    expected = reconstruct(run, 0.07, 24)
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert not torch.equal(made["final.linear.weight"], stored.final.linear.weight)


def test_bytes_are_rounded_or_truncated_as_the_official_code_does() -> None:
    x = torch.linspace(-1.2, 1.2, 5000).view(5, 1, 10, 100)
    official = (255 * (x.clamp(-1, 1) + 1) / 2).byte().permute(0, 2, 3, 1).numpy()
    truncated = to_uint8(x.numpy(), "truncate")
    assert np.abs(truncated.astype(int) - official).max() == 0
    exact = np.clip((x.numpy() + 1) * 127.5, 0, 255).transpose(0, 2, 3, 1)
    assert np.abs(to_uint8(x.numpy(), "round") - exact).max() <= 0.5001
    assert (exact - truncated).mean() == pytest.approx(0.5 * (1 - 2 / 12), abs=0.02)


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


def test_the_command_draws_beside_the_run_and_leaves_it_as_it_is(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def files() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}

    before = files()
    monkeypatch.chdir(tmp_path)
    options = ["--classes", "3,7,0-1", "--count", 12, "--guidance", 2, "--seed", 5]
    assert command(monkeypatch, run.path, *options, "--solver", "dpm++") == EXIT_DONE
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
        (["--ema-std", "0.5"], "--ema-std: should be less than 0.28"),
        (["--solver", "ddmp"], "Did you mean 'ddpm'?"),
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
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run.path.parent / "there.npz").touch()
    filled = [option.format(run=run.path) for option in options]
    assert command(monkeypatch, run.path, *filled) == EXIT_USAGE
    said = capsys.readouterr().err
    assert message.format(run=run.path) in said
    assert said.count("\n") == 1


def test_what_is_no_trained_run_is_said_in_one_line(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in run.ema.glob("*_step00000024*"):
        file.unlink()
    assert command(monkeypatch, run.path) == EXIT_USAGE
    assert (
        "no EMA snapshots of step 24 of 24; the newest are of --step 12" in capsys.readouterr().err
    )
    snapshot_file(run.ema, 0.05, 12).write_bytes(b"torn")
    out = ["--out", run.path.parent / "x.npz"]
    assert command(monkeypatch, run.path, "--step", 12, *out) == EXIT_USAGE
    assert "step00000012.safetensors is damaged" in capsys.readouterr().err
    for file in run.ema.iterdir():
        file.unlink()
    assert command(monkeypatch, run.path) == EXIT_USAGE
    assert "train it first" in capsys.readouterr().err
    assert command(monkeypatch, run.path.parent) == EXIT_USAGE
    assert "is not a run directory" in capsys.readouterr().err


MEAN, STD = (1.0, 0.0, -1.0, 0.5), (2.0, 1.0, 0.5, 3.0)


@pytest.fixture
def latent_run(tmp_path: Path, vae: Path) -> RunDir:
    """A run on latents; of their store only the manifest is here."""
    from mpdit.encoding.encoders import load_vae, weights_hash

    source = LatentSource(
        data="folder",
        hash="0" * 16,
        pixels=16,
        vae=str(vae),
        vae_hash=weights_hash(load_vae(str(vae))),
    )
    manifest = Manifest(
        images=9,
        classes=10,
        channels=4,
        size=8,
        flips=2,
        shard_images=9,
        source=source,
        mean=MEAN,
        std=STD,
        sha256={},
    )
    store = tmp_path / "store"
    store.mkdir()
    (store / "manifest.json").write_text(manifest.model_dump_json())
    data = {"name": "latents", "path": str(store), "channels": 4, "size": 8, "classes": 10}
    return trained(tmp_path / "study" / "latent", data=data, sample={"labels": "even"})


def test_latents_are_denormalized_and_decoded(latent_run: RunDir, vae: Path) -> None:
    from mpdit.encoding.encoders import load_vae

    config = latent_run.config()
    drawing = replace(Drawing.of_run(config), count=36)  # more than are decoded at once
    images, _ = arrays(draw_set(config, Session(latent_run, recorded=False), drawing, CPU))
    assert images.shape == (36, 16, 16, 3)
    model = load_average(latent_run, 0.05, 24, CPU)
    x = draw(model, drawing, range(36), CPU)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        expected = load_vae(str(vae)).decode(x.clone() * std + mean).sample
    assert np.abs(images.astype(int) - to_uint8(expected.numpy(), "round")).max() <= 1


def test_a_vae_that_is_missing_or_another_is_said_in_one_message(
    latent_run: RunDir, vae: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, session = latent_run.config(), Session(latent_run, recorded=False)
    drawing = Drawing.of_run(config)
    monkeypatch.setenv("MPDIT_VAE", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"cannot load the VAE .*set MPDIT_VAE to a folder"):
        draw_set(config, session, drawing, CPU)
    manifest = tmp_path / "store" / "manifest.json"
    monkeypatch.setenv("MPDIT_VAE", str(vae))
    manifest.write_text(manifest.read_text().replace(str(vae), "somewhere/else"))
    draw_set(config, session, replace(drawing, count=2), CPU)
    found = Manifest.model_validate_json(manifest.read_bytes()).source.vae_hash
    manifest.write_text(manifest.read_text().replace(str(found), "f" * 16))
    with pytest.raises(ConfigError, match="not the one that the latents were encoded with"):
        draw_set(config, session, drawing, CPU)
    manifest.unlink()
    with pytest.raises(ConfigError, match=r"has no manifest\.json"):
        draw_set(config, session, drawing, CPU)
