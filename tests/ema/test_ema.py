"""The averages are EDM2's: held against sums taken by hand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from mpdit.disk.rundir import RunDir
from mpdit.ema import posthoc
from mpdit.ema.power import (
    PowerEMA,
    beta,
    gamma_of,
    posthoc_errors,
    posthoc_weights,
    snapshot_file,
    write_snapshot,
)
from mpdit.training.trainer import build_model
from tests.helpers.doors import call
from tests.helpers.tiny import make

STEPS = 400


def random_walk() -> np.ndarray:
    """Weights after steps 1 … STEPS."""
    return np.random.default_rng(0).normal(size=STEPS).cumsum()


def brute_force(walk: np.ndarray, std: float, end: int) -> float:
    """The average after step ``end``, from the update's definition unrolled."""
    gamma = gamma_of(std)
    share = [
        (1 - beta(t, gamma)) * np.prod([beta(s, gamma) for s in range(t + 1, end + 1)])
        for t in range(1, end + 1)
    ]
    assert sum(share) == pytest.approx(1)
    return float(np.dot(share, walk[:end]))


def averaged(walk: np.ndarray, std: float) -> list[float]:
    """The running average after each step."""
    weight = torch.zeros(1, dtype=torch.float64)
    ema, values = PowerEMA([weight], [std]), []
    for step, value in enumerate(walk, start=1):
        weight.fill_(value)
        ema.update(step)
        values.append(ema.averages[std][0].item())
    return values


@given(st.floats(0.005, 0.28))
def test_gamma_gives_the_profile_its_width(std):
    gamma = gamma_of(std)
    assert (gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5 == pytest.approx(std)


def test_the_average_is_the_sum_by_hand():
    walk = random_walk()
    for std in (0.05, 0.10):
        values = averaged(walk, std)
        for end in (1, 2, 57, STEPS):
            assert values[end - 1] == pytest.approx(brute_force(walk, std, end), rel=1e-10)


def test_the_average_lags_behind_and_is_not_the_raw_weight():
    # The official code's inverted update stays at the newest weight.
    value = averaged(np.arange(1.0, STEPS + 1), 0.10)[-1]
    gamma = gamma_of(0.10)
    assert value / STEPS == pytest.approx((gamma + 1) / (gamma + 2), abs=0.01)


def test_another_width_is_reconstructed_from_snapshots():
    walk = random_walk()
    running = {std: averaged(walk, std) for std in (0.05, 0.10)}
    taken = range(20, STEPS + 1, 20)
    steps, stds = zip(*[(step, std) for std in running for step in taken], strict=True)
    stored = np.array([running[std][step - 1] for step, std in zip(steps, stds, strict=True)])
    wanted = [(STEPS, 0.05), (STEPS, 0.07), (STEPS, 0.12), (200, 0.10)]
    out_steps, out_stds = zip(*wanted, strict=True)
    weights = posthoc_weights(steps, stds, out_steps, out_stds)
    assert weights.sum(axis=0) == pytest.approx(np.ones(len(wanted)))
    expected = [brute_force(walk, std, end) for end, std in wanted]
    assert stored @ weights == pytest.approx(np.array(expected), abs=0.02 * walk.std())


def test_state_goes_on_with_the_same_bits():
    def parameters():
        return [torch.full((2, 3), 1.0), torch.zeros(4)]

    weights = parameters()
    ema = PowerEMA(weights, (0.05, 0.10))
    weights[0].fill_(2.0)
    ema.update(5)
    again = PowerEMA(parameters(), (0.05, 0.10))
    again.load_state_dict(ema.state_dict())
    for std, average in ema.averages.items():
        assert all(torch.equal(a, b) for a, b in zip(average, again.averages[std], strict=True))
    with pytest.raises(KeyError):
        PowerEMA(parameters(), (0.07,)).load_state_dict(ema.state_dict())


EVERY, LAST, WIDTHS = 2, 60, (0.05, 0.10)


@pytest.fixture(scope="module")
def walk_run(tmp_path_factory):
    """A run whose weights walked at random, its snapshots on disk, and the walk."""
    train = {"steps": LAST, "snapshot_every": EVERY, "ema_stds": WIDTHS}
    run = make(tmp_path_factory.mktemp("walk") / "run", train=train)
    config = run.config()
    model = build_model(config, torch.device("cpu"))
    weights = [parameter.detach() for parameter in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    fixed = {n: t for n, t in model.state_dict().items() if n not in names}
    random, ema, walk = torch.Generator().manual_seed(0), PowerEMA(weights, WIDTHS), []
    run.ema.mkdir()
    for step in range(1, LAST + 1):
        for weight in weights:
            weight.add_(torch.randn(weight.shape, generator=random))
        walk.append(torch.cat([weight.flatten() for weight in weights]).double().numpy())
        ema.update(step)
        if step % EVERY == 0:
            for std, average in ema.averages.items():
                tensors = {**fixed, **dict(zip(names, average, strict=True))}
                write_snapshot(snapshot_file(run.ema, std, step), tensors)
    return run, names, np.stack(walk)


@pytest.fixture
def own_run(walk_run, tmp_path):
    """A copy to write to."""
    return RunDir(Path(shutil.copytree(walk_run[0].path, tmp_path / "run")))


def command(capsys, run, *words):
    """``mpdit ema``: its exit status, and all that it says."""
    status = call("ema", run.path, *words)
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize(("std", "end"), [(0.03, 60), (0.07, 60), (0.12, 60), (0.15, 40)])
def test_a_profile_made_from_files_is_the_brute_force_average(walk_run, std, end):
    """Within what the fit's own error allows.

    The running average is ∫ p(τ) θ(⌈τ⌉) dτ exactly, so by Cauchy-Schwarz two profiles of sum 1
    differ by at most ‖p̂ − p‖ ‖θ − mean‖, with ‖p‖² = (γ+1)² / ((2γ+1) end).
    """
    run, names, walk = walk_run
    made = posthoc.reconstruct(run, std, end)
    values = torch.cat([made[name].flatten() for name in names]).numpy()
    gamma = gamma_of(std)
    ends = (np.arange(end + 1) / end) ** (gamma + 1)
    expected = np.diff(ends) @ walk[:end]
    assert expected[0] == pytest.approx(brute_force(walk[:, 0], std, end), rel=1e-9)

    fit = posthoc.fit(run, [std], end)
    norm = (gamma + 1) / ((2 * gamma + 1) * end) ** 0.5
    spread = np.linalg.norm(walk[:end] - walk[:end].mean(axis=0), axis=0)
    rounding = np.abs(fit.weights).sum() * np.abs(walk).max() * 1e-6  # of float32 snapshots
    bound = fit.errors[0] * norm * spread + rounding
    assert (np.abs(values - expected) <= bound).all()
    assert bound.mean() < 0.1 * spread.mean() / end**0.5  # which says something


def test_the_fixed_tables_are_copied_and_every_entry_is_there(walk_run):
    run, names, _ = walk_run
    stored = load_file(snapshot_file(run.ema, 0.05, LAST))
    made = posthoc.reconstruct(run, 0.07)
    assert {n: (t.shape, t.dtype) for n, t in made.items()} == {
        n: (t.shape, t.dtype) for n, t in stored.items()
    }
    assert all(torch.equal(made[n], stored[n]) for n in stored.keys() - set(names))


def test_a_stored_width_comes_back_as_it_is_stored(walk_run):
    run, _, _ = walk_run
    made, stored = posthoc.reconstruct(run, 0.05), load_file(snapshot_file(run.ema, 0.05, LAST))
    assert all(torch.allclose(made[name], stored[name], rtol=1e-6, atol=1e-6) for name in stored)


def test_the_error_of_the_fit_is_that_of_the_profiles_themselves():
    steps, stds = [20, 20, 40, 40], [0.05, 0.10] * 2
    weights = posthoc_weights(steps, stds, [40], [0.07])
    error = posthoc_errors(weights, steps, stds, [40], [0.07])[0]
    tau = (np.arange(400_000) + 0.5) / 10_000  # the middle of each piece of [0, 40]

    def profile(step: int, std: float) -> np.ndarray:
        gamma = gamma_of(std)
        return np.where(tau < step, (gamma + 1) * (tau / step) ** gamma / step, 0)

    stored = np.stack([profile(*pair) for pair in zip(steps, stds, strict=True)])
    wanted = profile(40, 0.07)
    by_hand = np.linalg.norm(weights[:, 0] @ stored - wanted) / np.linalg.norm(wanted)
    assert error == pytest.approx(by_hand, rel=1e-4)


def test_the_command_writes_snapshots_of_other_widths_and_says_how_good_they_are(own_run, capsys):
    status, said = command(capsys, own_run, "--std", 0.07, 0.12, "--step", 40)
    assert status == 0
    for std in (0.07, 0.12):
        file = snapshot_file(own_run.ema, std, 40)
        error = posthoc.fit(own_run, [std], 40).errors[0]
        assert f"{file}  relative error of the profile {error:.1e}" in said
        made = posthoc.reconstruct(own_run, std, 40)
        assert all(torch.equal(made[name], tensor) for name, tensor in load_file(file).items())
    _, said = command(capsys, own_run, "--std", 0.27)
    assert "doubtful, the stored widths are 0.05, 0.1" in said


def test_what_was_reconstructed_is_never_made_from(own_run, capsys):
    before = posthoc.reconstruct(own_run, 0.03)
    files = sorted(own_run.ema.iterdir())
    command(capsys, own_run, "--std", 0.07, 0.12)
    assert len(list(own_run.ema.iterdir())) == len(files) + 2
    after = posthoc.reconstruct(own_run, 0.03)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {s.file for s in posthoc.fit(own_run, [0.03]).snapshots} == set(files)


@pytest.mark.parametrize("std", [0, -0.1, 0.28, 1])
def test_a_width_out_of_range_is_refused_with_the_range(own_run, capsys, std):
    status, said = command(capsys, own_run, "--std", std)
    assert status == 2
    assert f"width {std} is out of range: 0 < std < 0.28" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--std", 0.05), "width 0.05 was averaged in training: it has snapshots"),
        (("--std", 0.0501), "named by three decimals"),
        (("--std", 0.07, "--step", 41), "at step 41; near it: 38, 40, 42"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(own_run, capsys, words, reason):
    before = sorted(own_run.ema.iterdir())
    status, said = command(capsys, own_run, *words)
    assert (status, said.count("\n")) == (2, 1)
    assert reason in said
    assert sorted(own_run.ema.iterdir()) == before


def test_a_damaged_snapshot_is_named_and_a_missing_one_is_done_without(own_run, capsys):
    file = snapshot_file(own_run.ema, 0.10, 24)
    file.write_bytes(file.read_bytes()[:-1])
    status, said = command(capsys, own_run, "--std", 0.07)
    assert (status, said.count("\n")) == (2, 1)
    assert f"{file} is damaged" in said
    file.unlink()
    status, said = command(capsys, own_run, "--std", 0.07)
    assert status == 0
    assert "without std0.100_step00000024.safetensors" in said


def test_a_folder_without_run_or_snapshots_is_refused(tiny_run, tmp_path, capsys):
    status, said = command(capsys, tiny_run, "--std", 0.07)
    assert status == 2
    assert "no snapshots of widths 0.05 and 0.1 yet" in said
    status, said = command(capsys, RunDir(tmp_path / "none"), "--std", 0.07)
    assert status == 2
    assert f"there is no run '{tmp_path / 'none'}'" in said


MEASURED = """
import runpy, sys
from pathlib import Path
from mpdit.ema import posthoc
from mpdit.disk.rundir import RunDir

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

posthoc.fit(RunDir(Path(sys.argv[1])), [0.07])  # imports what it needs, and reads no weights
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = peak()
try:
    runpy.run_module("mpdit.ema", run_name="__main__")
except SystemExit as end:
    assert end.code == 0
print(peak() - before)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is Linux's")
def test_memory_is_that_of_one_model_however_many_snapshots_there_are(tmp_path):
    run = make(
        tmp_path / "run",
        model={"depth": 8, "width": 256, "heads": 4},
        train={"steps": 16, "snapshot_every": 1},
    )
    tensors = build_model(run.config(), torch.device("cpu")).state_dict()
    size = sum(tensor.nbytes for tensor in tensors.values())
    assert size > 35e6
    run.ema.mkdir()
    first = snapshot_file(run.ema, 0.05, 1)
    write_snapshot(first, tensors)
    for std in WIDTHS:  # 32 names of one file are 32 models to whoever holds them open
        for step in range(1, 17):
            if (file := snapshot_file(run.ema, std, step)) != first:
                file.hardlink_to(first)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(run.path), "--std", "0.07"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1.75 * size  # measured: 1.52
    made = load_file(snapshot_file(run.ema, 0.07, 16))
    assert all(torch.allclose(made[name], tensors[name], atol=1e-5) for name in tensors)
