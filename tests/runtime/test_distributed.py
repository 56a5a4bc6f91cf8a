"""A run by several processes (gloo, on the CPU) is the run by one, save for the order of sums."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_BUSY, EXIT_FAILED, EXIT_INTERRUPTED
from mpdit.runtime.distributed import World
from tests.helpers import gradients_worker
from tests.helpers.processes import RUN, finish, popen, start
from tests.helpers.tiny import make

WORKER = [sys.executable, gradients_worker.__file__]


def gradients(folder: Path, processes: int, **changes: object) -> dict[str, torch.Tensor]:
    """Of the first batch's loss, and the losses."""
    run, target = make(folder, **changes), folder / "gradients.safetensors"
    if processes == 1:
        gradients_worker.main(run.path, target)
    else:
        finish(start([*WORKER, str(run.path), str(target)], processes))
    return load_file(target)


@pytest.mark.parametrize(
    ("processes", "micro_batch_size", "conditioning", "objective", "optimizer"),
    [
        (1, 3, "adaln", "epsilon", "muon"),
        pytest.param(2, 2, "adaln", "v", "muon", marks=pytest.mark.long),
        (3, 2, "adaln", "edm", "adam"),  # shares of 2, 3 and 3 images of the eight
        # the conditioning's embedders have no gradients
        pytest.param(2, None, "none", "edm", "adam", marks=pytest.mark.long),
    ],
)
def test_gradients_and_losses_are_those_of_one_process_at_once(
    tmp_path: Path,
    processes: int,
    micro_batch_size: int | None,
    conditioning: str,
    objective: str,
    optimizer: str,
) -> None:
    sample = {"solver": "heun" if objective == "edm" else "ddpm"}
    weighted = {"learned_uncertainty": objective == "edm"}
    run = {"model": {"conditioning": conditioning, **weighted}, "sample": sample}
    train: dict[str, object] = {"objective": objective, "optimizer": optimizer}
    one = gradients(tmp_path / "one", 1, **run, train=train)
    train |= {"micro_batch_size": micro_batch_size}
    many = gradients(tmp_path / "many", processes, **run, train=train)
    assert one.keys() == many.keys()
    assert any(name.startswith("step ") for name in one) == (optimizer == "muon")
    for name, expected in one.items():
        # Muon's products are bfloat16's: a last bit there is 0.4 % of a step of 2e-4 a number
        rtol, atol = (0, 5e-6) if name.startswith("step ") else (1e-4, 1e-7)
        torch.testing.assert_close(many[name], expected, rtol=rtol, atol=atol, msg=name)


@pytest.mark.long
def test_the_loss_curve_is_that_of_one_process(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    finish(start([*RUN, str(one.path)], 1))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    finish([popen([*torchrun, "--nproc-per-node", "2", "-m", "mpdit.run", str(two.path)], {})])
    assert two.is_done()
    curves = [read_rows(run.path / "metrics.jsonl") for run in (one, two)]
    for alone, shared in zip(*curves, strict=True):
        for measure in ("step", "loss", "mse", "vlb", "grad_norm", "learning_rate"):
            assert shared[measure] == pytest.approx(alone[measure], rel=1e-3)


@pytest.mark.long
def test_a_signal_to_any_process_stops_all_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path,
) -> None:
    steps = {"train": {"steps": 300, "checkpoint_every": 1000, "snapshot_every": 300}}
    whole, broken = make(tmp_path / "whole", **steps), make(tmp_path / "broken", **steps)
    finish(start([*RUN, str(whole.path)], 3))
    processes = start([*RUN, str(broken.path)], 3)
    while len(read_rows(broken.path / "metrics.jsonl")) < 10:
        assert processes[0].poll() is None, processes[0].communicate()[0]
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGUSR2)
    output = finish(processes, EXIT_INTERRUPTED)
    assert output.count("stopped by SIGUSR2") == 1
    finish(start([*RUN, str(broken.path)], 3))
    assert "resuming from step" in broken.log.read_text()
    last = [run.ema / "std0.050_step00000300.safetensors" for run in (whole, broken)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_a_batch_smaller_than_the_number_of_processes_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path, train={"batch_size": 1})
    output = finish(start([*RUN, str(run.path)], 2), EXIT_FAILED)
    assert "a batch of 1 cannot be shared by 2 processes" in output
    assert "Traceback" not in output


def test_what_ends_the_main_process_is_all_that_the_others_say(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.checkpoints.touch()  # no folder, to the process that writes there
    output = finish(start([*RUN, str(run.path)], 2), EXIT_FAILED)
    assert "this process exits because the main process failed: " in output
    assert f"{run.checkpoints}: File exists" in output
    assert "Traceback" not in output


def test_processes_find_each_other_in_submitit_s_environment() -> None:
    """Two tasks of one Slurm job on one node, as srun starts them."""
    job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2"}
    node = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODEID": "0"}
    code = "from mpdit.runtime.distributed import join\n"
    code += "with join() as w: print(w.largest(w.rank), w.size)"
    tasks = [
        popen(
            [sys.executable, "-c", code],
            {**job, **node, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]
    assert finish(tasks).count("1 2") == 2


@pytest.mark.long
def test_a_run_that_is_held_is_left_alone_by_all_processes(tiny_run: RunDir) -> None:
    with tiny_run.lease():
        output = finish(start([*RUN, str(tiny_run.path)], 2), EXIT_BUSY)
    assert "Traceback" not in output


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_cover_the_batch_once(size: int) -> None:
    batch = list(range(8))
    parts = [batch[World(rank, size).share(8)] for rank in range(size)]
    assert [image for part in parts for image in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
