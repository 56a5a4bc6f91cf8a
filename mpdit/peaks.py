"""Peak speeds of devices, by name. No torch is imported: `mpdit plan` estimates costs by them."""

from __future__ import annotations

import re

PEAKS = {
    "B200": (2250, 1125, 75),
    "GH200": (989, 494, 67),
    "H200 NVL": (835, 418, 60),
    "H200": (989, 494, 67),
    "H100 PCIe": (756, 378, 51),
    "H100 NVL": (835, 417, 60),
    "H100": (989, 494, 67),
    "A100 80GB PCIe": (312, 156, 19.5),
    "A100": (312, 156, 19.5),
    "L40S": (362, 183, 91.6),
    "A40": (150, 75, 37.4),
    "A10G": (70, 35, 31.5),
    "A10": (125, 62.5, 31.2),
    "L4": (121, 60, 30.3),
    "RTX 5090": (209.5, 104.8, 104.8),
    "RTX 4090": (165, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
}
"""Dense TFLOP/s of matrix products in bfloat16, tf32, float32, as NVIDIA's data sheets have
them, by the model's whole name in the device's; the first that fits."""

MULTIPROCESSORS = {
    "B200": 148,
    "GH200": 132,
    "H200": 132,
    "H100 PCIe": 114,
    "H100": 132,
    "A100": 108,
}
"""Multiprocessors of the whole card, for cards that can be sliced (MIG); the first match counts."""

CPUS = ("cpu", "x86_64", "aarch64", "arm64", "arm", "ppc64le")
"""Names of devices that are no GPU, as runs record them."""

PRECISIONS = ("bfloat16", "tf32", "float32")


def peak_flops(name: str, precision: str, multiprocessors: int | None = None) -> float | None:
    """Peak FLOP/s of matrix products, None for a device that is not in the table.

    Args:
        multiprocessors: of the device; a slice of a card (MIG) has a part of the card's. If not
            given, a slice named ``3g`` counts as three sevenths.
    """
    column = PRECISIONS.index(precision)
    whole, _, profile = name.partition(" MIG ")
    # whole words, and no variant with other clocks: an A4000 is no A40, an H100 NVL no H100
    for part, peak in PEAKS.items():
        rest = re.sub(rf"\b{part}\b", "", whole)
        if rest != whole and not re.search(r"\b(NVL|PCIe|Laptop|Ti|SUPER|D)\b", rest):
            return peak[column] * 1e12 * (_share(part, profile, multiprocessors) if profile else 1)
    return None


def _share(card: str, profile: str, multiprocessors: int | None) -> float:
    """The fraction of a card that a slice has."""
    of_card = next((n for part, n in MULTIPROCESSORS.items() if card.startswith(part)), None)
    if multiprocessors and of_card:
        return multiprocessors / of_card
    sevenths = re.match(r"(\d)g", profile)
    return int(sevenths[1]) / 7 if sevenths else 1
