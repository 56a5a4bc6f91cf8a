"""Under test, every tensor that crosses a function of the science is held against its shape."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # benchmarks/gpu.py is what tests a GPU

from jaxtyping import install_import_hook

CHECKED = (
    *("model", "diffusion", "ema", "data", "training", "sampling", "evaluation", "encoding"),
    *("sample", "evaluate"),
)

install_import_hook([f"mpdit.{name}" for name in CHECKED], "beartype.beartype")

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.helpers")

import torch  # noqa: E402

from mpdit import extensions  # noqa: E402
from mpdit.disk.rundir import RunDir  # noqa: E402
from tests.helpers.tiny import make  # noqa: E402

FIRST = tuple(f"tests/slurm/test_{name}.py" for name in ("code", "commands", "submission"))
"""The half of the Slurm tests that takes as long as the others."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two workers have the tests that need a Slurm, each its cluster; others do the rest.

    That is what ``--dist loadgroup`` is for, but pytest-xdist 3.8 has none with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if not nodeid.startswith("tests/slurm/"):
                return nodeid
            return "slurm 1" if nodeid.startswith(FIRST) else "slurm 2"

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _no_extensions() -> Iterator[None]:
    """They stay loaded for the life of a process; not from test to test."""
    yield
    for name in extensions.loaded():
        extensions.unload(name)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    # mpdit.runtime.devices.prepare turns it on for the whole process
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Whichever tests ran before in this process."""
    torch.manual_seed(0)


@pytest.fixture
def tiny_run(tmp_path: Path) -> RunDir:
    """The folder of a tiny run that has not begun."""
    return make(tmp_path / "study" / "tiny")


@pytest.fixture(scope="session")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random AutoencoderKL, of factor two."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vae")
    diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(path)
    return path
