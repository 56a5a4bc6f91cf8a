"""Official runs become runs of ours whole, with the same outputs; anything else is refused."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mpdit.catalogue import PARTS
from mpdit.data.latents import LatentStore
from mpdit.disk.rundir import RunDir
from mpdit.ema.power import snapshot_file
from mpdit.errors import EXIT_USAGE, ConfigError
from mpdit.model import DiT
from mpdit.official.conversion import convert
from mpdit.official.tensors import BUFFERS
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.sampling.sampler import load_average
from mpdit.training import checkpoint
from mpdit.training.trainer import Trainer
from tests.helpers.golden import EXACT, MODELS, OWN_TABLES, Golden, close
from tests.helpers.latents import make_store

STEPS = 1600
ARGUMENTS = {"batch_size": 256, "lr": 1e-3, "num_steps": 400_000, "results_dir": "x", "seed": 3}


def state_of(golden: Golden, prefix: str = "") -> dict[str, torch.Tensor]:
    tensors = {**golden.under("param/"), **golden.under("buffer/")}
    return {prefix + name: tensor for name, tensor in tensors.items()}


def old_run(
    folder: Path, golden: Golden, *, prefix: str = "", key: str = "model", ema: bool = True
) -> Path:
    """What the official training leaves: two widths at two steps, one checkpoint."""
    for sub in ("checkpoints", "ema"):
        (folder / sub).mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**golden.arguments, **ARGUMENTS}))
    state = state_of(golden, prefix)
    content = {key: state, "opt": {"state": {}}} if key else state
    torch.save(content, folder / "checkpoints" / f"{STEPS:07d}.pt")
    for std in (0.05, 0.1):
        for step in (STEPS // 2, STEPS):
            half = {name: tensor.half() for name, tensor in state.items()}
            snapshot = {"std": std, "t": step, "state_dict": half}
            if ema:
                torch.save(snapshot, folder / "ema" / f"{std:.3f}_{step:07d}.pt")
    return folder


LATEST = next(path for path in MODELS if path.stem.startswith("final"))
LONG_BUT_LATEST = [
    pytest.param(path, marks=() if path is LATEST else pytest.mark.long, id=path.stem)
    for path in MODELS
]


@pytest.fixture(params=MODELS, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def output(state: dict[str, torch.Tensor], run: RunDir, golden: Golden) -> torch.Tensor:
    config = run.config()
    model = DiT(config.model, config.data.spec).double()
    model.load_state_dict(state)
    for name, buffer in model.named_buffers():
        if name not in state:
            buffer.copy_(golden[f"buffer/{BUFFERS[name]}"].reshape(buffer.shape))
    with torch.no_grad():
        out: torch.Tensor = model(*golden.inputs())
    return out


def sampled_model(run: RunDir) -> DiT:
    """With the weights that the run's own samples are drawn from."""
    config = run.config()
    return load_average(run, config.sample.ema_std, config.train.steps, torch.device("cpu"))


@pytest.mark.parametrize(("prefix", "key"), [("_orig_mod.", "model"), ("", ""), ("", "state_dict")])
def test_a_converted_checkpoint_has_the_official_output(tmp_path, golden, prefix, key):
    notes = convert(old_run(tmp_path / "old", golden, prefix=prefix, key=key), tmp_path / "new")
    run = RunDir(tmp_path / "new")
    state = checkpoint.load_newest(run.checkpoints, torch.device("cpu"), pytest.fail)
    assert state is not None
    assert state["step"] == run.config().train.steps == STEPS
    assert close(output(state["model"], run, golden), golden["out_eval"], EXACT)
    assert "inverted update" in notes[1]
    assert "inverted update" in run.log.read_text()
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert notes == provenance["starts"][0]["notes"]


def test_converted_snapshots_are_what_the_sampler_loads(tmp_path, golden):
    convert(old_run(tmp_path / "old", golden), tmp_path / "new")
    run = RunDir(tmp_path / "new")
    assert sorted(file.name for file in run.ema.iterdir()) == [
        f"std{std}_step{step:08d}.safetensors"
        for std in ("0.050", "0.100")
        for step in (STEPS // 2, STEPS)
    ]
    halves = load_file(snapshot_file(run.ema, 0.05, STEPS))
    assert close(output(halves, run, golden), golden["out_eval"], 1e-2)
    model = sampled_model(run)
    x, t, y = golden.inputs()
    with torch.no_grad():
        assert close(model(x.float(), t, y), golden["out_eval"].float(), 1e-2)


def test_without_snapshots_the_raw_weights_are_sampled_and_it_says_so(tmp_path, golden):
    old = old_run(tmp_path / "old", golden, ema=False)
    notes = convert(old, tmp_path / "new")
    run = RunDir(tmp_path / "new")
    assert "raw weights" in notes[1]
    model = sampled_model(run).double()
    with torch.no_grad():
        assert close(model(*golden.inputs()), golden["out_eval"], OWN_TABLES)


def test_without_checkpoints_the_snapshots_are_the_weights(tmp_path, golden):
    old = old_run(tmp_path / "old", golden)
    next((old / "checkpoints").iterdir()).unlink()
    notes = convert(old, tmp_path / "new")
    assert "no checkpoint" in notes[2]
    assert RunDir(tmp_path / "new").config().train.steps == STEPS


def test_the_official_arguments_are_the_new_runs_config(tmp_path):
    for kind, clip in (("flags", None), ("mods", 0.1), ("final", 0.1)):
        path, rates = next(p for p in MODELS if p.stem.startswith(kind)), (1e-3, 1e-3)
        golden = Golden(path)
        convert(old_run(tmp_path / path.stem, golden), tmp_path / f"new-{path.stem}")
        config = RunDir(tmp_path / f"new-{path.stem}").config()
        assert config.model == golden.config
        assert config.data.spec == golden.data
        assert (config.train.learning_rate, config.train.mp_learning_rate) == rates
        assert (config.train.clip_norm, config.seed) == (clip, 3)
        assert (config.train.warmup_steps, config.train.constant_steps) == (2666, 40_000)


def test_a_rate_that_is_not_an_argument_is_the_generations(tmp_path, golden):
    old = old_run(tmp_path / "old", golden)
    arguments = yaml.safe_load((old / "config.yaml").read_text())
    del arguments["lr"]
    (old / "config.yaml").write_text(yaml.safe_dump(arguments))
    convert(old, tmp_path / "new")
    config = RunDir(tmp_path / "new").config()
    assert config.train.learning_rate == (1e-4 if golden.kind == "flags" else 1e-2)
    assert config.train.mp_learning_rate == config.train.learning_rate
    assert config.sample.guidance == (1.5 if golden.kind == "flags" else 1.0)


CLI = {
    "ckpt_every": 50_000,
    "data_path": "data",
    "ema_snapshot_every": 800,
    "log_every": 100,
    "num_lin_warmup": None,
    "num_workers": 4,
    "start_decay": None,
    "stats_mean": [0.9, 0.2, 0.1, 0.0],
    "stats_std": [4.0, 4.0, 3.0, 3.0],
    "use_ema": True,
    "verbose": 1,
}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_a_run_is_read_as_its_command_line_writes_it(tmp_path, golden, prefix):
    old = old_run(tmp_path / "old", golden, prefix=prefix)
    arguments = yaml.safe_load((old / "config.yaml").read_text())
    for part in PARTS:
        if f"{part}_mod" in arguments:
            arguments[f"use_{part}_mod"] = arguments.pop(f"{part}_mod")
    (old / "config.yaml").write_text(yaml.safe_dump({**arguments, **CLI}))
    convert(old, tmp_path / "new")
    config = RunDir(tmp_path / "new").config()
    assert config.model == golden.config
    assert (config.train.snapshot_every, config.train.warmup_steps) == (800, 2666)
    assert config.train.gain_learning_rate == config.train.learning_rate == 1e-3
    assert config.train.decay_offset == 1


@pytest.mark.parametrize("golden", LONG_BUT_LATEST, indirect=True)
def test_a_converted_run_is_sampled(tmp_path, golden, vae, monkeypatch):
    """The VAE and the latents' statistics come from a store, as for any other run on latents."""
    make_store(tmp_path / "latents", images=32)
    monkeypatch.setenv("MPDIT_DATA", str(tmp_path))
    monkeypatch.setenv("MPDIT_VAE", str(vae))
    convert(old_run(tmp_path / "old", golden), tmp_path / "new")
    words = [
        "--count",
        "4",
        "--solver",
        "ddim",
        "--steps",
        "20",
        "--out",
        str(tmp_path / "some.npz"),
    ]
    command = [sys.executable, "-m", "mpdit.sample", str(tmp_path / "new"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "some.npz") as drawn:
        assert drawn["arr_0"].shape == (4, 16, 16, 3)


def test_a_converted_run_is_left_as_it_is_by_training(tmp_path, golden, monkeypatch):
    make_store(tmp_path / "latents", images=32)
    monkeypatch.setenv("MPDIT_DATA", str(tmp_path))
    monkeypatch.setattr(LatentStore, "check_fits", lambda *_: None)  # it has three classes
    convert(old_run(tmp_path / "old", golden), tmp_path / "new")
    run, cpu = RunDir(tmp_path / "new"), torch.device("cpu")
    state = checkpoint.load_newest(run.checkpoints, cpu, pytest.fail)
    groups = state["optimizer"]["param_groups"]
    assert {tuple(group["betas"]) for group in groups} == {run.config().train.adam_betas}
    for group in groups:
        group["betas"] = (0.9, 0.999)  # as version 0.1 wrote them
    checkpoint.save(run.checkpoints, state["step"], state)
    files = {file: file.read_bytes() for file in run.ema.iterdir()}
    Trainer(run.config(), Session(run), cpu, World()).fit()
    assert {file: file.read_bytes() for file in run.ema.iterdir()} == files


def test_a_checkpoint_newer_than_the_averages_is_said(tmp_path, golden):
    old = old_run(tmp_path / "old", golden)
    torch.save({"model": state_of(golden)}, old / "checkpoints" / f"{2 * STEPS:07d}.pt")
    notes = convert(old, tmp_path / "new")
    assert any(f"{2 * STEPS:07d}.pt is left out" in note for note in notes)
    assert RunDir(tmp_path / "new").config().train.steps == STEPS


def test_weights_that_are_no_numbers_are_refused(tmp_path, golden):
    old = old_run(tmp_path / "old", golden)
    state = state_of(golden)
    state["x_embedder.weight"] = state["x_embedder.weight"].clone()
    state["x_embedder.weight"][0, 0] = torch.nan
    torch.save({"model": state}, old / "checkpoints" / f"{STEPS:07d}.pt")
    with pytest.raises(ConfigError, match=r"patches.weight holds NaN"):
        convert(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "names",
    [
        ["blocks.0.mod_msa.gate_net.net.1.weight"],
        ["blocks.0.attn.qkv_proj.weight", "blocks.0.rot.weight"],
    ],
)
def test_other_generations_are_refused_in_one_sentence(tmp_path, golden, names):
    old = old_run(tmp_path / "old", golden, ema=False)
    (old / "config.yaml").write_text(yaml.safe_dump({"model": "DiT-S/4", **ARGUMENTS}))
    state = {name: torch.zeros(2) for name in names}
    torch.save({"model": state}, old / "checkpoints" / f"{STEPS:07d}.pt")
    with pytest.raises(ConfigError, match="a run of branch main or another version") as raised:
        convert(old, tmp_path / "new")
    assert len(str(raised.value)) < 300


def break_run(old: Path, how: str) -> None:
    weights = old / "checkpoints" / f"{STEPS:07d}.pt"
    config = yaml.safe_load((old / "config.yaml").read_text())
    state = torch.load(weights, weights_only=True)["model"]
    match how:
        case "no weights":
            for file in [*old.glob("*/*.pt")]:
                file.unlink()
        case "no config":
            (old / "config.yaml").unlink()
        case "a config of code":
            (old / "config.yaml").write_text("model: !!python/object/apply:os.getcwd []")
        case "damaged":
            weights.write_bytes(weights.read_bytes()[:500])
        case "a changed byte":
            content = bytearray(weights.read_bytes())
            place = content.find(state["x_embedder.weight"].numpy().tobytes())
            content[place] ^= 1
            weights.write_bytes(content)
        case "an odd pickle":
            with zipfile.ZipFile(weights, "w") as archive:
                for name, part in (("data.pkl", b"\x80\x02."), ("version", b"3\n")):
                    archive.writestr(f"archive/{name}", part)
        case "pickled code":
            torch.save({"model": Path("x")}, weights)
        case "odd keys":
            torch.save({"weights_of": state, "epoch": 3}, weights)
        case "a tensor too many":
            torch.save({"model": {**state, "blocks.7.extra": torch.zeros(2)}}, weights)
        case "a tensor too few":
            state.pop("x_embedder.weight")
            torch.save({"model": state}, weights)
        case "another width":
            (old / "config.yaml").write_text(yaml.safe_dump({**config, "hidden_size": 32}))
        case "another flag":
            (old / "config.yaml").write_text(yaml.safe_dump({**config, "use_fourier": True}))
        case "no size":
            config.pop("depth")
            (old / "config.yaml").write_text(yaml.safe_dump(config))
        case "original DiT":
            state = {
                "pos_embed": torch.zeros(1, 256, 1152),
                "x_embedder.proj.weight": torch.zeros(1152, 4, 2, 2),
                "blocks.0.attn.qkv.weight": torch.zeros(3, 1),
                "blocks.0.attn.qkv.bias": torch.zeros(3),
            }
            for file in [*old.glob("*/*.pt"), old / "config.yaml"]:
                file.unlink()
            torch.save(state, old / "checkpoints" / "DiT-XL-2-256x256.pt")
        case "a broken snapshot":
            (old / "ema" / f"0.100_{STEPS // 2:07d}.pt").write_bytes(b"")
        case "a name without a step":
            weights.rename(weights.with_name("last.pt"))


REFUSED = {
    "no weights": "neither checkpoints/*.pt nor ema/*.pt",
    "no config": "no config.yaml",
    "a config of code": "config.yaml:1: tags (tag:yaml.org,2002:python",
    "damaged": "is damaged",
    "a changed byte": "is not what was written",
    "an odd pickle": "is damaged: IndexError",
    "pickled code": "pickled code is not loaded",
    "odd keys": "but weights_of, epoch",
    "a tensor too many": "the model has no place for blocks.7.extra",
    "a tensor too few": "lacks the tensor for patches.weight",
    "another width": "config.yaml",
    "another flag": "use_fourier has no counterpart",
    "no size": "no depth",
    "original DiT": "original DiT release",
    "a broken snapshot": "is damaged",
    "a name without a step": "last.pt: no step",
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_official_run_is_refused_and_nothing_is_written(tmp_path, how):
    old = old_run(tmp_path / "old", Golden(MODELS[0]))
    break_run(old, how)
    with pytest.raises(ConfigError) as refusal:
        convert(old, tmp_path / "new")
    assert REFUSED[how] in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_run_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "new").mkdir()
    with pytest.raises(ConfigError, match="already exists"):
        convert(old_run(tmp_path / "old", Golden(MODELS[0])), tmp_path / "new")


@pytest.mark.long
def test_the_command_says_what_it_did_or_why_not(tmp_path):
    old = old_run(tmp_path / "old", Golden(MODELS[0]))
    command = [
        sys.executable,
        "-m",
        "mpdit.official",
        "convert",
        str(old),
        str(tmp_path / "new"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "inverted update" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == EXIT_USAGE
    assert again.stderr == f"error: {tmp_path / 'new'} already exists\n"
