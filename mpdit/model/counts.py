"""Parameters and FLOPs of a model with an extension's flag or part, from the built model itself.

`mpdit.flops` calculates the others from the config alone. Nothing is computed: the model is built
and run on the meta device.
"""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mpdit.catalogue import Dataset
from mpdit.model.dit import DiT
from mpdit.modelconfig import ModelConfig

_PARTS = {
    **dict.fromkeys(("patches", "time", "label"), "embedders"),
    "modulation": "modulation",
    "final": "final",
}


def count_parameters(config: ModelConfig, data: Dataset) -> dict[str, int]:
    """Trainable parameters by part, as `mpdit.flops.count_parameters`.

    Parameters outside the parts that every model has are counted in ``other``.
    """
    counted = dict.fromkeys(("embedders", "attention", "mlp", "modulation", "final"), 0)
    for name, parameter in _build(config, data).named_parameters():
        first, *rest = name.split(".")
        part = rest[1] if first == "blocks" else _PARTS.get(first, "other")
        part = part if part in counted or part == "norms" else "other"
        counted[part] = counted.get(part, 0) + parameter.numel()
    return counted


def forward_flops(config: ModelConfig, data: Dataset) -> int:
    """Floating-point operations of one image's forward pass, matrix products only."""
    model = _build(config, data)
    image = torch.zeros(1, data.channels, data.size, data.size, device="meta")
    zero = torch.zeros(1, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(image, zero, zero)
    return int(counter.get_total_flops())


def _build(config: ModelConfig, data: Dataset) -> DiT:
    with torch.device("meta"):
        return DiT(config, data)
