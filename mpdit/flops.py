"""How many parameters a model has and what its forward pass costs, from the config alone.

No torch is imported: `mpdit plan` counts thousands of configurations. A test holds the counts
equal to the built models' and the FLOPs equal to `torch.utils.flop_counter`'s.
"""

from __future__ import annotations

from mpdit.catalogue import PARTS, Dataset, load_code
from mpdit.catalogue.respacing import TIMESTEPS
from mpdit.modelconfig import ModelConfig

FOURIER_FEATURES = 256
UNCERTAINTY_FEATURES = 128
CALCULATED = frozenset({"shared_modulation", "learned_uncertainty"})
"""The added flags whose counts are calculated here."""
TRAINING_PASSES = 3
"""A training step in forward passes: backward has two products for each one of forward."""
NEWTON_SCHULZ = 5
"""Iterations in which Muon makes a matrix orthogonal (torch's ``ns_steps``)."""


def _is_calculated(model: ModelConfig) -> bool:
    """Whether the counts follow from the config: an extension's flag or part may hold anything."""
    own = all(PARTS.find(part).origin == "mpdit" for part in model.parts)
    return own and CALCULATED.issuperset(model.added_flags)


def part_width(part: str, model: ModelConfig) -> int:
    """The number of values that one part of a modulation takes."""
    acting = "rotation" if part == "gate" and model.gate == "rotation" else part
    return PARTS.find(acting).width(model.width)


def time_features(model: ModelConfig) -> int:
    """The number of features that the time embedding's MLP takes."""
    fourier = model.time_embedding in ("fourier", "mp_fourier")
    return FOURIER_FEATURES if fourier else model.width


def mlp_maps(model: ModelConfig) -> tuple[int, int]:
    """(maps from or to the hidden channels, hidden channels) of a block's feed-forward layer.

    Two maps of 4·D hidden channels have 8·D² weights, and so have SwiGLU's three of 8/3·D
    (arXiv:2002.05202, section 2). That is rounded to the nearest multiple of 8, as fast matrix
    products need: the weights are 8·D² within 12·D, exactly where 3 divides D.
    """
    return (
        (3, 8 * max(1, round(model.width / 3))) if model.mlp == "swiglu" else (2, 4 * model.width)
    )


def _modulation(model: ModelConfig, parts: tuple[str, ...], sublayers: int) -> tuple[int, int]:
    """(outputs, learned gains) of a block's or the final layer's modulation."""
    outputs = sublayers * sum(part_width(part, model) for part in parts)
    gains = sublayers * len(parts) if model.modulation == "separate" else min(1, len(parts))
    with_gains = model.weight_normalization and model.modulation != "plain"
    return outputs, gains if with_gains else 0


def _block_maps(model: ModelConfig) -> int:
    """The number of modulation maps of all blocks together."""
    return 1 if "shared_modulation" in model.added_flags else model.depth


def _norm(model: ModelConfig) -> int:
    """Learned numbers of the norm before one sublayer."""
    return 1 + 2 * model.width if model.norm == "dyt" else 0


def count_parameters(model: ModelConfig, data: Dataset) -> dict[str, int]:
    """Count trainable parameters by part: embedders, attention, mlp, modulation, final.

    Norms and others are parts too, where there are any.

    ``modulation`` and ``norms`` are the blocks'; the final layer's own are counted in ``final``.
    ``other`` is the loss's learned uncertainty.
    With an extension's flag or part, the built model is counted, with torch.
    """
    if not _is_calculated(model):
        built: dict[str, int] = load_code("mpdit.model.counts:count_parameters")(model, data)
        return built
    width, depth = model.width, model.depth
    patch = model.patch_size**2 * data.channels
    block_outputs, block_gains = _modulation(model, model.parts, sublayers=2)
    final_outputs, final_gains = _modulation(model, model.final_parts, sublayers=1)
    final_gains += model.weight_normalization and model.zero_output
    mlp_matrices, hidden = mlp_maps(model)
    maps = _block_maps(model)
    embeddings = depth * block_outputs if "shared_modulation" in model.added_flags else 0
    norm = _norm(model)
    gains_of_qk = 2 * (width // model.heads) if model.qk_norm == "rms" else 0
    return {
        "embedders": (patch + 1) * width
        + (time_features(model) + width) * width
        + (TIMESTEPS * width if model.time_embedding == "table" else 0)
        + (data.classes + 1) * width,
        "attention": depth * (4 * width**2 + gains_of_qk),
        "mlp": depth * mlp_matrices * hidden * width,
        "modulation": maps * (block_outputs * width + block_gains) + embeddings,
        "final": (2 * patch + final_outputs) * width + final_gains + norm,
        **({"norms": 2 * depth * norm} if norm else {}),
        **({"other": UNCERTAINTY_FEATURES} if "learned_uncertainty" in model.added_flags else {}),
    }


def forward_flops(model: ModelConfig, data: Dataset) -> int:
    """Count floating-point operations of one image's forward pass, of matrix products only.

    A product of m×k and k×n counts 2·m·k·n. With T tokens of width D, patches of p numbers, f time
    features, and modulations of M (a block's) and F (the final layer's) numbers:

        T·(p+1)·D + (f + D)·D + depth·(12·T·D² + 2·T²·D + M·D) + T·D·2p + F·D,   all twice.

    A shared modulation has M·D once; SwiGLU with h hidden channels has 4·D + 3·h for 12·D.

    With an extension's flag or part, the built model's are counted, with torch.
    """
    if not _is_calculated(model):
        return int(load_code("mpdit.model.counts:forward_flops")(model, data))
    width, T = model.width, (data.size // model.patch_size) ** 2
    patch = model.patch_size**2 * data.channels
    block_outputs, _ = _modulation(model, model.parts, sublayers=2)
    final_outputs, _ = _modulation(model, model.final_parts, sublayers=1)
    embed = T * (patch + 1) * width + (time_features(model) + width) * width
    mlp_matrices, hidden = mlp_maps(model)
    projections = T * width * (4 * width + mlp_matrices * hidden)
    block = projections + 2 * T**2 * width
    modulation = _block_maps(model) * block_outputs * width
    final = T * width * 2 * patch + final_outputs * width
    return 2 * (embed + model.depth * block + modulation + final)


def muon_flops(model: ModelConfig) -> int:
    """Floating-point operations of Muon in one step, matrix products only; no batch is in them.

    An iteration of Newton and Schulz's method has X Xᵀ, its square, and their sum times X: of a
    matrix with m rows and n ≥ m columns 4·m²·n + 2·m³. What an extension adds is not counted.
    """
    width = model.width
    maps, hidden = mlp_maps(model)
    parts = [(PARTS.find(part).unit(width), part_width(part, model)) for part in model.parts]
    modulation = [rows for unit, every in parts for rows in (unit, every - unit) if rows]
    of_block = [*[width] * 4, *[hidden] * maps]
    rows = of_block * model.depth + modulation * 2 * _block_maps(model)
    pairs = [(min(width, one), max(width, one)) for one in rows]
    return NEWTON_SCHULZ * sum(4 * m**2 * n + 2 * m**3 for m, n in pairs)
