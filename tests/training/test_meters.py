"""What training says of itself: utilization, a precision that is missing."""

from pathlib import Path

import pytest
import torch

from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.peaks import peak_flops
from mpdit.runtime import devices
from mpdit.training.meters import Meters
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "precision", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA A100-SXM4-40GB", "tf32", 156),
        ("NVIDIA A100-PCIE-40GB", "tf32", 156),
        ("NVIDIA H100 NVL", "bfloat16", 835),
        ("NVIDIA GeForce RTX 4090", "float32", 82.6),
        ("NVIDIA L40S", "float32", 91.6),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312),
        ("NVIDIA H200 NVL", "bfloat16", 835),
        ("NVIDIA GH200 480GB", "tf32", 494),
        ("NVIDIA A10G", "bfloat16", 70),
        ("NVIDIA GeForce RTX 5090", "bfloat16", 209.5),
    ],
)
def test_a_gpu_s_peak_is_its_data_sheet_s(name: str, precision: str, teraflops: float) -> None:
    assert peak_flops(name, precision) == teraflops * 1e12


def test_a_slice_of_a_gpu_has_its_part_of_the_peak() -> None:
    slice_ = "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    assert peak_flops(slice_, "bfloat16") == pytest.approx(312e12 * 3 / 7)
    assert peak_flops(slice_, "bfloat16", 42) == pytest.approx(312e12 * 42 / 108)
    pcie = "NVIDIA H100 PCIe MIG 1g.10gb"
    assert peak_flops(pcie, "bfloat16", 16) == pytest.approx(756e12 * 16 / 114)
    assert peak_flops("NVIDIA A100-SXM4-40GB", "bfloat16", 108) == 312e12


def test_utilization_is_counted_products_over_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr("mpdit.training.meters.device_name", lambda _: "NVIDIA A100-SXM4-40GB")
    config = tiny_config(model={"width": 64, "depth": 2})
    meters = Meters(config, RunDir(tmp_path), CPU, devices=4)
    for _ in range(100):
        meters.add(torch.zeros(4))
    meters.took(2.0)
    row = meters.row(100, meters.means(100), 1e-4)

    B = config.train.batch_size
    model = DiT(config.model, config.data.spec)
    with FlopCounterMode(display=False) as counter:
        model(
            torch.randn(B, 1, 8, 8), torch.zeros(B).long(), torch.zeros(B).long()
        ).sum().backward()
    per_second = counter.get_total_flops() * 100 / 2.0
    # the counter leaves out the gradients of the patches and of the labels, which are no weights'
    assert row["mfu"] == pytest.approx(per_second / (4 * 19.5e12), rel=0.02)


@pytest.mark.parametrize(
    "name",
    ["NVIDIA RTX A4000", "NVIDIA L40", "NVIDIA GeForce RTX 5090 D", "NVIDIA RTX 4090 Laptop GPU"],
)
def test_a_gpu_that_only_sounds_like_another_has_no_known_peak(name: str) -> None:
    assert peak_flops(name, "bfloat16") is None


def test_no_utilization_is_claimed_where_the_peak_is_unknown(tmp_path: Path) -> None:
    meters = Meters(tiny_config(), RunDir(tmp_path), CPU, devices=1)
    meters.took(1.0)
    meters.add(torch.zeros(4))
    assert "mfu" not in meters.row(1, meters.means(1), 1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine may have tf32")
def test_a_precision_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="tf32 needs an NVIDIA GPU"):
        devices.prepare("tf32")
