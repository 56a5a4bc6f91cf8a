"""Another activation in the MLPs, as a flag: relu(x)² instead of SiLU (So et al., 2021)."""

import torch.nn.functional as F

from mpdit.catalogue import flag


@flag(
    "squared_relu",
    code="relu2",
    does="relu(x)² instead of SiLU in the blocks' MLPs; with mp_silu divided by its magnitude",
    source="arXiv:2109.08668",
)
def use_squared_relu(model):
    """The magnitude of relu(x)² is √1.5 for normally distributed x: E[relu(x)⁴] = 3/2."""
    scale = 1.5**-0.5 if model.config.mp_silu else 1.0
    for block in model.blocks:
        block.mlp.act = lambda x: scale * F.relu(x).square()
        block.mlp.second.length = 1.0  # mp_silu keeps SiLU's factor, 1 / 0.596, in these rows
