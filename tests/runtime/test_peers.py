"""Processes of one run fail in one message, and none waits for one that has failed."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_FAILED, ConfigError
from mpdit.runtime import distributed
from mpdit.runtime.distributed import World
from mpdit.runtime.interfaces import interface_to
from tests.helpers.processes import finish, start
from tests.helpers.tiny import make

PATCHED = """
import os, signal, sys, time
import torch, mpdit.run
from mpdit.runtime import peers
from mpdit.training.trainer import Trainer
peers.SILENT_S, peers.GRACE_S = 4.0 if "killed" in sys.argv else 100.0, 1.0
own, step = int(os.environ["RANK"]), Trainer.train_step
def out_of_memory(): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
def bug(): raise KeyError("no such thing")
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def hang(): time.sleep(10_000)  # as a kernel of NCCL does that waits for another process
def train_step(self):
    if self.step == 5 and own < len(sys.argv) - 2:
        {"out_of_memory": out_of_memory, "bug": bug, "killed": killed, "hang": hang,
         "step": lambda: None}[sys.argv[2 + own]]()
    step(self)
Trainer.train_step = train_step
from mpdit.disk.rundir import RunDir
from pathlib import Path
sys.exit(mpdit.run.execute(RunDir(Path(sys.argv[1]))))
"""


def run_ranks(run: RunDir, *ends: str) -> tuple[str, str]:
    """What the processes print, and the error in state.json, when they end like that at step 5."""
    command = [sys.executable, "-c", PATCHED, str(run.path), *ends]
    output = finish(start(command, len(ends)), EXIT_FAILED)
    state = run.state()
    assert state is not None
    return output, str(state.error)


@pytest.mark.parametrize("main", [pytest.param("step", marks=pytest.mark.slow), "hang"])
def test_another_process_out_of_memory_is_the_run_s_error(tmp_path: Path, main: str) -> None:
    output, error = run_ranks(make(tmp_path / "run"), main, "out_of_memory")
    assert "process 1 of " in error
    assert "CUDA out of memory" in error
    assert "train.micro_batch_size" in error
    assert output.count("failed: CUDA out of memory") == 2  # its own message, and the main one's
    assert "Traceback" not in output


@pytest.mark.slow
def test_the_others_end_when_the_main_process_fails_and_they_hang(tmp_path: Path) -> None:
    output, error = run_ranks(make(tmp_path / "run"), "out_of_memory", "hang")
    assert error.startswith("CUDA out of memory")
    assert "this process exits because the main process failed: CUDA out of memory" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_killed_process_is_missed_by_one_that_waits_for_it(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    command = [sys.executable, "-c", PATCHED, str(run.path), "hang", "killed"]
    main, other = start(command, 2)
    output, _ = main.communicate(timeout=120)
    other.communicate()
    assert (main.returncode, other.returncode) == (EXIT_FAILED, -signal.SIGKILL)
    state = run.state()
    assert state is not None
    assert str(state.error).startswith("process 1 sent no sign of life for 4 s")
    assert "Traceback" not in output


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Processes of NCCL, that have these (host, GPU)."""
    places: list[tuple[str, str]] = []
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: type("P", (), {"uuid": "GPU-1"})
    )
    monkeypatch.setattr(distributed.dist, "get_backend_config", lambda: "cpu:gloo,cuda:nccl")

    def gather(found: list[tuple[str, str]], _own: tuple[str, str]) -> None:
        found[:] = places

    monkeypatch.setattr(distributed.dist, "all_gather_object", gather)
    return places


def test_two_processes_with_one_gpu_are_refused_before_nccl_starts(
    one_gpu: list[tuple[str, str]],
) -> None:
    world, device = World(0, 3, 0), torch.device("cuda", 0)
    one_gpu[:] = [("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-1")]
    distributed.check_devices(world, device)
    one_gpu[:] = [("a", "GPU-1"), ("a", "GPU-2"), ("a", "GPU-1")]
    with pytest.raises(ConfigError, match=r"processes 0 and 2 have the same GPU \(GPU-1 of a\)"):
        distributed.check_devices(world, device)


def test_the_backend_may_be_overridden_and_is_nccl_with_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("MPDIT_BACKEND", raising=False)
    assert distributed._backend() == "cpu:gloo,cuda:nccl"
    monkeypatch.setenv("MPDIT_BACKEND", "gloo")
    assert distributed._backend() == "gloo"
    monkeypatch.setenv("MPDIT_BACKEND", "mpi")
    with pytest.raises(ConfigError, match=r"\$MPDIT_BACKEND: 'mpi' is not one of gloo, nccl"):
        distributed._backend()


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked for on Linux only")
def test_gloo_s_interface_reaches_the_main_process() -> None:
    assert interface_to("127.0.0.1", several_machines=False) == "lo"
    assert interface_to("127.0.0.1", several_machines=True) != "lo"  # as /etc/hosts may have it
    assert interface_to("no-such-host.invalid", several_machines=False) is None
    assert os.environ.get("GLOO_SOCKET_IFNAME") is None
