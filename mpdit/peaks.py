"""How fast devices are at best, by name. No torch is imported: `launch.py plan` prices runs."""

from __future__ import annotations

import re

PEAKS = {
    "B200": (2250, 1125, 75),
    "H200": (989, 494, 67),
    "H100 PCIe": (756, 378, 51),
    "H100 NVL": (835, 417, 60),
    "H100": (989, 494, 67),
    "A100": (312, 156, 19.5),
    "L40S": (362, 183, 91.6),
    "A40": (150, 75, 37.4),
    "A10": (125, 62.5, 31.2),
    "L4": (121, 60, 30.3),
    "RTX 4090": (165, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
}
"""Dense TFLOP/s of matrix products in bfloat16, tf32, float32, as NVIDIA's data sheets have
them, by the model's whole name in the device's; the first that fits."""

CPUS = ("cpu", "x86_64", "aarch64", "arm64", "arm", "ppc64le")
"""Names of devices that are no GPU, as runs record them."""

PRECISIONS = ("bfloat16", "tf32", "float32")


def peak_flops(name: str, precision: str) -> float | None:
    """FLOP/s of matrix products at best, None for a device that is not in the table."""
    column = PRECISIONS.index(precision)
    # whole words, and no variant with other clocks: an A4000 is no A40, an H200 NVL no H200
    for part, peak in PEAKS.items():
        rest = re.sub(rf"\b{part}\b", "", name)
        if rest != name and not re.search(r"\b(NVL|PCIe|Laptop|Ti|SUPER|D)\b", rest):
            return peak[column] * 1e12
    return None
