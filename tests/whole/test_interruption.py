"""However a run is interrupted, the same command goes on to the same bits."""

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from tests.helpers.interrupted import finish, finish_forked, fork, science_of, start
from tests.helpers.tiny import make, tiny_config

BUSY = {
    "train": {
        "steps": 240,
        "snapshot_every": 6,
        "checkpoint_every": 7,
        "log_every": 3,
        "probe_every": 20,
    },
    "sample": {"count": 60, "steps": 20, "batch_size": 5},
}
"""Much to interrupt: some file is being written most of the time."""
LARGE = {
    "model": {"depth": 1, "width": 128, "heads": 2, "patch_size": 4},
    "train": {"steps": 12, "snapshot_every": 4, "checkpoint_every": 5, "log_every": 1},
}
"""Snapshots of about 1.6 MB, checkpoints of 8 MB."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, float]:
    """The run that nothing interrupts, and the seconds from its first word to its last."""
    run = make(tmp_path_factory.mktemp("study") / "whole", **BUSY)
    process = fork(run)
    while process.is_alive() and run.state() is None:
        time.sleep(0.002)
    began = time.monotonic()
    process.join(timeout=120)
    assert process.exitcode == EXIT_DONE, run.log.read_text()
    return run, time.monotonic() - began


def kill_at_random(run: RunDir, kills: int, working: float, seed: int) -> Counter[str]:
    """Start the run, kill it, and again; how often in each stage.

    Each attempt lives so long, from its first word on, that so many of them about make the whole
    run, which takes ``working`` seconds.
    """
    moments, stages = random.Random(seed), Counter[str]()
    while not run.is_done() and stages.total() < kills:
        process = fork(run)
        while process.is_alive() and getattr(run.state(), "pid", None) != process.pid:
            time.sleep(0.002)
        process.join(timeout=moments.uniform(0, 2 * working / kills))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            state = run.state()
            stages[state.stage if state else "before"] += 1
    print(f"seed {seed}: killed in {dict(stages)}")
    return stages


@pytest.mark.long
def test_a_run_killed_at_random_many_times_comes_to_the_same_bits(
    busy: tuple[RunDir, float], tmp_path: Path
) -> None:
    whole, working = busy
    broken = make(tmp_path / "broken", **BUSY)
    stages = kill_at_random(broken, 20, working, seed=0)
    finish_forked(broken)
    assert stages.total() >= 6
    assert "resuming from step" in broken.log.read_text()
    assert science_of(broken) == science_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_a_run_killed_at_random_very_many_times_comes_to_the_same_bits(
    busy: tuple[RunDir, float], tmp_path: Path, seed: int
) -> None:
    whole, working = busy
    broken = make(tmp_path / "broken", **BUSY)
    kill_at_random(broken, 40, working, seed=seed)
    finish_forked(broken)
    assert science_of(broken) == science_of(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_stops_the_run_with_its_state_kept_and_it_goes_on_to_the_same_bits(
    busy: tuple[RunDir, float], tmp_path: Path, number: signal.Signals
) -> None:
    broken = make(tmp_path / "broken", **BUSY)
    process = fork(broken)
    while len(read_rows(broken.path / "metrics.jsonl")) < 10:
        assert process.is_alive()
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(timeout=60)
    assert process.exitcode == EXIT_INTERRUPTED
    assert not broken.is_done()
    assert not broken.is_leased()
    state = broken.state()
    assert state is not None
    assert state.stopped == number.name
    finish_forked(broken)
    assert f"resuming from step {state.step}\n" in broken.log.read_text()
    assert science_of(broken) == science_of(busy[0])


def test_a_killed_command_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """As a user has it: the command itself, killed while sampling."""
    slow = {"sample": {"count": 60, "steps": 200, "batch_size": 20}}
    whole, broken = make(tmp_path / "whole", **slow), make(tmp_path / "broken", **slow)
    finish_forked(whole)
    process = start(broken)
    while not list(broken.samples.rglob("shard_*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    finish(broken)
    assert "of 3 batches of samples" in broken.log.read_text()
    assert science_of(broken) == science_of(whole)


def test_what_a_killed_write_left_beside_the_snapshots_goes_at_the_next_start(
    tmp_path: Path,
) -> None:
    run = make(tmp_path / "run")
    run.ema.mkdir()
    (run.ema / ".tmpA1b2C3").touch()  # as safetensors names it
    finish_forked(run)
    assert {file.suffix for file in run.ema.iterdir()} == {".safetensors"}


def test_a_batch_of_another_size_after_a_resume_loses_and_doubles_no_sample(tmp_path: Path) -> None:
    sample = {"count": 60, "steps": 200, "batch_size": 20}
    run = make(tmp_path / "run", sample=sample)
    process = fork(run)
    while not list(run.samples.rglob("shard_*")):
        assert process.is_alive()
        time.sleep(0.01)
    process.terminate()
    process.join()
    run.write_config(tiny_config(sample={**sample, "batch_size": 50}))
    finish_forked(run)
    with np.load(run.samples / "samples.npz") as arrays:
        assert len(arrays["arr_0"]) == len(arrays["arr_1"]) == 60
    images = [file.name for file in run.samples.iterdir() if file.suffix != ".safetensors"]
    assert sorted(images) == ["grid.png", "samples.npz"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = make(tmp_path_factory.mktemp("study") / "large", **LARGE)
    finish_forked(run)
    return run


def test_without_room_for_a_checkpoint_the_run_says_what_is_missing_and_goes_on_later(
    large: RunDir, tmp_path: Path
) -> None:
    run, said = make(tmp_path / "run", **LARGE), tmp_path / "said.txt"
    whole = next(large.checkpoints.glob("*.pt")).stat().st_size
    process = fork(run, said, largest_file=whole // 2)
    process.join(timeout=60)
    assert process.exitcode == EXIT_FAILED
    state = run.state()
    assert state is not None
    message = str(state.error)
    assert f"cannot write {run.checkpoints}/step_00000005.pt" in message
    assert f"a checkpoint takes {whole / 1e6:,.1f} MB" in message
    assert "MB free" in message
    assert said.read_text().count(message) == 1
    assert "Traceback" not in said.read_text()
    finish_forked(run)
    assert science_of(run) == science_of(large)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which is to be remounted with more room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=16k", "mpdit-test", str(folder)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small file system is root's")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_at_any_moment_ends_in_one_message_and_with_room_it_goes_on(
    large: RunDir, small_disk: Path, tmp_path: Path
) -> None:
    run, said = make(small_disk / "run", **LARGE), tmp_path / "said.txt"
    needed = sum(file.stat().st_size for file in large.path.rglob("*") if file.is_file())
    full = Counter[str]()
    room = 16 * 1024
    while True:
        process = fork(run, said)
        process.join(timeout=60)
        if process.exitcode == EXIT_DONE:
            break
        assert process.exitcode == EXIT_FAILED, said.read_text()
        assert "Traceback" not in said.read_text()
        (what,) = re.findall(r"cannot write (.*) \(.*MB free", said.read_text())
        full[Path(what).suffix] += 1
        room += room // 2
        assert room < 4 * needed
        subprocess.run(["mount", "-o", f"remount,size={room}", str(small_disk)], check=True)
    print(f"full while writing {dict(full)}")
    assert {".safetensors", ".pt"} <= full.keys()
    assert science_of(run) == science_of(large)
