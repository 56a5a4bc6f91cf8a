"""What a GPU would meet, on a stand-in of one: devices, precisions, compilers, provenance."""

import os
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mpdit.encoding.decoder import Decoder
from mpdit.errors import ConfigError
from mpdit.evaluation.extractors import classifier
from mpdit.model.compiler import check_compiler
from mpdit.runtime import devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def _on_gpu(options: dict[str, Any]) -> bool:
    return isinstance(options.get("device"), torch.device) and options["device"].type == "cuda"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Two GPUs that do nothing; the devices that were set."""
    chosen: list[torch.device] = []
    about = SimpleNamespace(
        uuid="GPU-1", multi_processor_count=108, major=8, minor=0, total_memory=40 * 2**30
    )
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_capability": lambda *_: (8, 0),
        "get_device_properties": lambda _: about,
        "set_device": chosen.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: None if _on_gpu(k) else empty(*a, **k))
    return chosen


@pytest.fixture(autouse=True)
def _settings() -> object:
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_a_process_that_sees_one_gpu_takes_it_whatever_its_number(
    gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert devices.prepare("bfloat16", 1) == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.prepare("tf32", 5) == torch.device("cuda", 0)
    assert gpus == [torch.device("cuda", 1), torch.device("cuda", 0)]
    assert torch.backends.cudnn.allow_tf32
    assert torch.are_deterministic_algorithms_enabled()


def test_a_gpu_in_exclusive_mode_is_said_in_one_message(
    gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA …")

    monkeypatch.setattr(torch, "empty", busy)
    with pytest.raises(ConfigError, match=r"exclusive compute mode .*MPS.*runs_per_job"):
        devices.prepare("float32")
    assert len(gpus) == 1


def test_provenance_has_all_that_a_gpu_s_numbers_depend_on(
    gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    )
    monkeypatch.setattr(devices, "DRIVER", driver)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    found = devices.gpu_details(CUDA)
    assert gpus == []
    assert (found["multiprocessors"], found["capability"], found["nccl"]) == (108, "8.0", "2.27.3")
    assert (found["driver"], found["cuda"]) == ("550.54.15", "12.8")
    assert {"cudnn", "triton", "uuid", "memory_mb"} <= found.keys()
    driver.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release\n"
    )
    assert devices.gpu_details(CUDA)["driver"] == "570.86.10"
    assert devices.gpu_details(CPU) == {}


def tf32() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_latents_are_decoded_and_images_looked_at_in_float32(
    gpus: list[torch.device],
) -> None:
    """Whatever training or sampling computes in, which goes on in that."""
    seen: list[tuple[str, bool]] = []

    def decode(part: torch.Tensor) -> SimpleNamespace:
        seen.append(tf32())
        return SimpleNamespace(sample=part)

    devices.set_precision("tf32", "sample.precision")
    decoder = object.__new__(Decoder)
    decoder.vae = SimpleNamespace(decode=decode)
    decoder.mean, decoder.std = torch.zeros(4, 1, 1), torch.ones(4, 1, 1)
    decoder(torch.zeros(2, 4, 2, 2))
    extractor = classifier.load("digits", CPU)
    look = extractor.network.look
    extractor.network.look = lambda images: (seen.append(tf32()), look(images))[1]  # type: ignore[assignment]
    images = torch.zeros(2, 8, 8, 1, dtype=torch.uint8).numpy()
    extractor.features(images)
    assert seen == [("highest", False)] * 2
    assert tf32() == ("high", True)
    assert gpus == []


def test_without_what_triton_needs_a_compiled_run_ends_in_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    compiler = tmp_path / "gcc"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="compile: true needs Python's header on a GPU"):
        check_compiler(CUDA)
    (tmp_path / "Python.h").touch()
    check_compiler(CUDA)
    compiler.unlink()
    with pytest.raises(ConfigError, match=r"needs a C compiler on a GPU, .* no gcc or clang"):
        check_compiler(CUDA)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler on a CPU"):
        check_compiler(CPU)
