"""The options of model, training and sampling.

Options whose value is a name have a table with a row per name. Options whose value is a number, a
boolean or a file share one table with a row per option.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpdit.catalogue.flags import EDM2, PAPER
from mpdit.catalogue.registry import Registry, Row

FINAL = "map-dit branch final"

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
            does="Dynamic Tanh, γ tanh(αx) + β; α starts at 0.5, β at 0, γ at 1 (with mp_silu at "
            "1 / 0.4166, for unit magnitude); one per sublayer, 1 + 2 · width parameters each",
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
            does="W₂ (silu(W₁ x) ⊙ V x) with 8/3 · width hidden channels, rounded to a multiple of "
            "8: about 8 · width² parameters, as with silu; with mp_silu the product is divided by "
            "its magnitude, 0.596",
            source="arXiv:2002.05202 eq. 6",
        ),
    ],
    note="of the blocks; the time embedding always uses silu",
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
            does="axial RoPE in place of the table: in each head of n channels, q and k are "
            "rotated in the pairs (i, i + n/2); for i < n/4 by the angle column · 100^(−4i/n), and "
            "the other pairs likewise by row; keeps norms, no parameters",
            source="arXiv:2104.09864 eq. 34, arXiv:2403.13298 section 3.1",
        ),
    ],
    note="mp_pos_enc and model.mean_free_positions apply to the table only",
)

QK_NORMS = Registry(
    "query-key norm",
    Row,
    "model.qk_norm",
    [
        Row(name="none", does="q and k without a norm", source="arXiv:2212.09748"),
        Row(
            name="cosine",
            does="q √n / (‖q‖ + 1e-4) for each head of n channels, and the same for k: the flag "
            "cosine_attention",
            source=f"{EDM2} section 4.2",
        ),
        Row(
            name="rms",
            does="γ q / √(mean q² + 1e-6) for each head, and the same for k; all heads share one γ "
            "for q and one for k, which start at 1: 2 · width / heads parameters per block",
            source="arXiv:2302.05442, arXiv:2403.03206",
        ),
    ],
    note="cosine_attention is the paper's name for cosine",
)

GATES = Registry(
    "gate",
    Row,
    "model.gate",
    [
        Row(name="zero", does="the sublayer's output times g", source="arXiv:2212.09748"),
        Row(
            name="one_plus",
            does="the output times 1 + g",
            source=f"{PAPER}, map-dit branch old-mod_opts",
        ),
        Row(
            name="rotation",
            does="each pair of the output's channels rotated by an angle; width / 2 numbers",
            source=f"{PAPER} eq. 6, {FINAL}",
        ),
    ],
    note="the form of the part gate; g starts at zero",
)

MODULATIONS = Registry(
    "modulation map",
    Row,
    "model.modulation",
    [
        Row(
            name="joint",
            does="one map with one learned gain for all parts of a block",
            source="arXiv:2212.09748",
        ),
        Row(
            name="separate",
            does="a map with its own learned gain for each part of each sublayer",
            source=f"{PAPER}, map-dit branch old-mod_opts",
        ),
        Row(name="plain", does="maps without weight normalization and gains", source=FINAL),
    ],
    note="they differ only with weight_normalization",
)

TIME_EMBEDDINGS = Registry(
    "time embedding",
    Row,
    "model.time_embedding",
    [
        Row(
            name="sinusoidal",
            does="[cos(t f), sin(t f)] with f_i = 10000^(−2i / width)",
            source="arXiv:2212.09748",
        ),
        Row(
            name="table",
            does="a learned row for each of the 1000 timesteps: 1000 · width parameters",
            source=PAPER,
        ),
        Row(
            name="fourier",
            does="cos(2π (f t + φ)) with 256 fixed random f and φ, of magnitude 0.707",
            source=f"{PAPER}, map-dit branch old-mod_opts",
        ),
        Row(name="mp_fourier", does="the same times √2: unit magnitude", source=f"{EDM2} eq. 75"),
    ],
    note="unset: table with mp_embedding, else sinusoidal; table is refused with flow and edm",
)

OPTIMIZERS = Registry(
    "optimizer",
    Row,
    "train.optimizer",
    [
        Row(
            name="adam",
            does="Adam with train.adam_betas; AdamW with train.weight_decay",
            source="arXiv:1412.6980 algorithm 1, arXiv:1711.05101 algorithm 2",
        ),
        Row(
            name="muon",
            does="Muon for the blocks' matrices: orthogonalized steps of Adam's magnitude "
            "(0.2 √max(rows, columns)); q, k, v and each part of the modulation count as separate "
            "matrices; Adam for the other parameters",
            source="Jordan et al., 2024; arXiv:2502.16982 eq. 4",
        ),
    ],
)


@dataclass(frozen=True, kw_only=True)
class Option(Row):
    """An option whose value is a number, a boolean or a file; its name is the whole key.

    Attributes:
        unset: the value if a grid does not set the option.
    """

    unset: str


OPTIONS = Registry(
    "other option",
    Option,
    "",
    [
        Option(
            name="model.mp_attention",
            unset="false",
            does="each head's output scaled to unit magnitude, o √n / ‖o‖ for each token, because "
            "softmax's average shrinks it",
            source=f"this package, after {EDM2} section 4.2",
        ),
        Option(
            name="model.mp_attention_output",
            unset="false",
            does="attention's output after its last map scaled to unit magnitude: y √width / ‖y‖",
            source=FINAL,
        ),
        Option(
            name="model.mean_free_positions",
            unset="false",
            does="each row of the position table minus its mean",
            source=f"{PAPER}, map-dit branch old-mod_opts",
        ),
        Option(
            name="model.mean_free_table",
            unset="false",
            does="the position table minus its overall mean",
            source=FINAL,
        ),
        Option(
            name="model.zero_output",
            unset="true",
            does="the model's output is zero at initialization; false: it is not, and the last map "
            "has no gain",
            source=f"arXiv:2212.09748, {FINAL}",
        ),
        Option(
            name="model.residual_t",
            unset="0.3",
            does="t of the residual sums mp_sum(x, output, t), with mp_residual",
            source=f"{EDM2} eq. 88",
        ),
        Option(
            name="model.final_conditioning",
            unset="same",
            does="the conditioning parts of the final layer, without gate; same: as the blocks",
            source=PAPER,
        ),
        Option(
            name="train.weight_decay",
            unset="0",
            does="w ← w − rate · λ w in each step, for linear maps only",
            source="arXiv:1711.05101 algorithm 2",
        ),
        Option(
            name="train.mp_learning_rate",
            unset="train.learning_rate",
            does="the rate of weight-normalized matrices and tables",
            source=f"{EDM2} section 2.3",
        ),
        Option(
            name="train.gain_learning_rate",
            unset="train.mp_learning_rate",
            does="the rate of learned gains",
            source="map-dit branch old-mod_opts",
        ),
        Option(
            name="train.matrix_learning_rate",
            unset="by weight normalization",
            does="the rate of linear maps",
            source="Jordan et al., 2024",
        ),
        Option(
            name="train.embedding_learning_rate",
            unset="by weight normalization",
            does="the rate of tables of labels and timesteps",
            source="Jordan et al., 2024",
        ),
        Option(
            name="train.start",
            unset="random weights",
            does="initial weights from another run or a file; the id contains their hash",
        ),
        Option(
            name="sample.guidance_interval",
            unset="everywhere",
            does="guidance only at noise levels σ with lower < σ ≤ upper",
            source="arXiv:2404.07724",
        ),
    ],
    note="the whole name",
)
