"""The model's options that are one of several by name, each a row."""

from __future__ import annotations

from mpdit.catalogue.flags import EDM2, PAPER
from mpdit.catalogue.registry import Registry, Row

NORMS = Registry(
    "norm",
    Row,
    "model.norm",
    [
        Row(
            name="layer",
            does="LayerNorm, (x − mean x) / √(var x + 1e-6), without affine parameters",
            source="arXiv:1607.06450 eq. 4, arXiv:2212.09748",
        ),
        Row(
            name="rms",
            does="RMSNorm, x / √(mean x² + 1e-6), without affine parameters",
            source="arXiv:1910.07467 eq. 4",
        ),
        Row(
            name="none",
            does="no norm before attention, MLP and the final layer: the flag no_layernorm",
            source=PAPER,
        ),
        Row(
            name="dyt",
            does="Dynamic Tanh, γ tanh(αx) + β; α starts at 0.5, β at 0, γ at 1, or with mp_silu "
            "at 1 / 0.4166, for unit magnitude; one a sublayer, 1 + 2 · width parameters",
            source="Zhu et al., arXiv:2503.10622",
        ),
    ],
    note="no_layernorm is the paper's name for none",
)

MLPS = Registry(
    "feed-forward layer",
    Row,
    "model.mlp",
    [
        Row(
            name="silu",
            does="W₂ silu(W₁ x), 4 · width hidden channels",
            source="arXiv:2505.19122",
        ),
        Row(
            name="swiglu",
            does="W₂ (silu(W₁ x) ⊙ V x), the multiple of 8 nearest to 8/3 · width hidden channels: "
            "8 · width² parameters, as with silu; with mp_silu the product is divided by its "
            "magnitude, 0.596",
            source="arXiv:2002.05202 eq. 6",
        ),
    ],
    note="the blocks'; the time embedding's is always silu",
)

POSITIONS = Registry(
    "position encoding",
    Row,
    "model.positions",
    [
        Row(
            name="sincos",
            does="a fixed table of sines and cosines of row and column, added to the tokens",
            source="arXiv:2111.06377, arXiv:2212.09748",
        ),
        Row(
            name="rope",
            does="axial RoPE in place of the table: of a head's n channels, pair i and its partner "
            "i + n/2 of q and of k are turned by column · 100^(−4i/n), i < n/4, the other pairs by "
            "row alike; norms stay, no parameters",
            source="arXiv:2104.09864 eq. 34, arXiv:2403.13298 section 3.1",
        ),
    ],
    note="mp_pos_enc and model.mean_free_positions are the table's",
)

QK_NORMS = Registry(
    "query-key norm",
    Row,
    "model.qk_norm",
    [
        Row(name="none", does="q and k as their maps give them", source="arXiv:2212.09748"),
        Row(
            name="cosine",
            does="q √n / (‖q‖ + 1e-4) for each head of n channels, and so k: the flag "
            "cosine_attention",
            source=f"{EDM2} section 4.2",
        ),
        Row(
            name="rms",
            does="γ q / √(mean q² + 1e-6) for each head, and so k; one γ of q and one of k for all "
            "heads, which start at 1: 2 · width / heads parameters a block",
            source="arXiv:2302.05442, arXiv:2403.03206",
        ),
    ],
    note="cosine_attention is the paper's name for cosine",
)
