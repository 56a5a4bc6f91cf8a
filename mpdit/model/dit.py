"""The Diffusion Transformer (DiT: Peebles & Xie, arXiv:2212.09748) with map-dit's options.

All three generations of the official code (Bill et al., arXiv:2505.19122) are points of one
`ModelConfig`. There are no biases anywhere.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mpdit.catalogue import FLAGS, Dataset
from mpdit.model.compiler import check_compiler
from mpdit.model.embedding import (
    AxialRoPE,
    Fourier,
    TimeEmbedding,
    Uncertainty,
    patchify,
    position_table,
    unpatchify,
)
from mpdit.model.layers import (
    EPS,
    MLP,
    Attention,
    MPEmbedding,
    MPLinear,
    activation,
    summed,
)
from mpdit.model.modulation import Modulation, Residual, Values
from mpdit.model.norm import norm_of
from mpdit.modelconfig import ModelConfig

Record = Callable[[int, str, Tensor], None]
"""Called with the block's index, the site's name, and the tensor there."""
SITES = ("conditioning", "modulated", "attention", "mlp", "residual")
"""The recorded tensors: the conditioning vector (once, as block 0's), attention's input, the
outputs of attention and MLP before their gates, the block's output."""

Tokens = Float[Tensor, "batch tokens width"]
Images = Float[Tensor, "batch channels height width"]
Indices = Int[Tensor, " batch"]
Times = Real[Tensor, " batch"]
"""Original timesteps 0 … 999, or an objective's continuous times."""


class Block(nn.Module):
    """x ← join(x, gate ⊙ attention(m(x))), x ← join(x, gate ⊙ mlp(m(x)))."""

    def __init__(self, config: ModelConfig, index: int, rope: AxialRoPE | None) -> None:
        super().__init__()
        self.index = index
        self.norms = nn.ModuleList(norm_of(config) for _ in ("attention", "mlp"))
        self.modulation = Modulation(config, config.parts, 2) if config.parts else None
        self.attention = Attention(config, rope)
        self.mlp = MLP.of_block(config)
        self.join = Residual(config)

    def modulate(self, x: Tokens, values: Values, sublayer: int) -> Tokens:
        """A sublayer's input, normalized and modulated."""
        x = self.norms[sublayer](x)
        return self.modulation.modulate(x, values) if self.modulation else x

    def forward(
        self, x: Tokens, c: Float[Tensor, "batch numbers"], record: Record | None = None
    ) -> Tokens:
        """``c`` is the conditioning vector after its activation, or the shared map's output."""
        first, second = self.modulation(c) if self.modulation else ({}, {})
        modulated = self.modulate(x, first, 0)
        attended = self.attention(modulated)
        x = self.join(x, attended, first)
        mixed = self.mlp(self.modulate(x, second, 1))
        x = self.join(x, mixed, second)
        if record is not None:
            sites = {"modulated": modulated, "attention": attended, "mlp": mixed, "residual": x}
            for site, value in sites.items():
                record(self.index, site, value)
        return x


class Final(nn.Module):
    """Modulated tokens → the values of their patches, ε and variance; zero at initialization with
    ``zero_output``."""

    def __init__(self, config: ModelConfig, numbers: int) -> None:
        super().__init__()
        parts = config.final_parts
        self.norm = norm_of(config)
        self.modulation = Modulation(config, parts, 1) if parts else None
        self.linear = MPLinear(
            config.width,
            numbers,
            normalized=config.weight_normalization,
            zero=config.zero_output,
        )

    def forward(
        self, x: Tokens, c: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch tokens numbers"]:
        x = self.norm(x)
        if self.modulation:
            x = self.modulation.modulate(x, self.modulation(c)[0])
        numbers: Tensor = self.linear(x)
        return numbers


class DiT(nn.Module):
    """A class-conditional Diffusion Transformer that predicts ε and the variance's interpolation.

    Args:
        model: its size, flags and conditioning.
        data: the shape of the images, and the number of classes.
        generator: the source of all initial values (a CPU generator); None is torch's own.

    Attributes:
        null_class: the label that stands for no label, for label dropout and guidance.
        uncertainty: u(t) of the loss, where the model learns it.
        recompute: gradient checkpointing: of each block only the input is kept for the backward
            pass, which computes the block again. False unless set; the gradients are the same bits.
    """

    positions: Tensor | None

    def __init__(
        self, model: ModelConfig, data: Dataset, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = model
        self.channels = data.channels
        self.null_class = data.classes
        self.recompute = False
        self.side = data.size // model.patch_size
        width, normalized = model.width, model.weight_normalization
        numbers = model.patch_size**2 * data.channels

        table, rope = None, None
        if model.positions == "rope":
            rope = AxialRoPE(width // model.heads, self.side)
        else:
            table = position_table(model, self.side).to(torch.get_default_dtype())
        self.register_buffer("positions", table, persistent=False)
        self.patches = MPLinear(numbers + 1, width, normalized=normalized)
        self.time = TimeEmbedding(model)
        self.label = MPEmbedding(data.classes + 1, width, normalized=model.mp_embedding)
        self.act = activation(model)
        self.modulation: MPLinear | None = None  # of all blocks, where it is shared
        self.blocks = nn.ModuleList(Block(model, index, rope) for index in range(model.depth))
        self.final = Final(model, 2 * numbers)
        self.uncertainty: Uncertainty | None = None
        for flag in model.added_flags:
            FLAGS.find(flag).load()(self)
        for module in self.modules():
            if isinstance(module, MPLinear | MPEmbedding | Fourier):
                module.reset(generator)

    def forward(
        self, x: Images, t: Times, y: Indices, record: Record | None = None
    ) -> Float[Tensor, "batch outputs height width"]:
        """Noisy images, times, labels → (B, 2C, H, W): ε, then variance.

        ``record`` gets the intermediates named in `SITES`.
        """
        tokens = F.pad(patchify(x, self.config.patch_size), (0, 1), value=1.0)  # (B, T, P·P·C + 1)
        h = self.patches(tokens)  # (B, T, D)
        if self.positions is not None:
            h = summed(self.config, h, self.positions)
        c = summed(self.config, self.time(t), self.label(y))  # (B, D)
        if record is not None:
            record(0, "conditioning", c)
        c = self.act(c)
        m = c if self.modulation is None else self.modulation(c).to(c.dtype)
        for block in self.blocks:
            run = block if record is None else block.forward  # recording is done uncompiled
            if self.recompute and torch.is_grad_enabled():
                h = checkpoint(run, h, m, record, use_reentrant=False, preserve_rng_state=False)
            else:
                h = run(h, m, record)
        return unpatchify(self.final(h, c), self.config.patch_size, self.side)

    def guided(
        self, x: Images, t: Times, y: Indices, guidance: float
    ) -> Float[Tensor, "batch outputs height width"]:
        """Classifier-free guidance: ε = ε_null + w(ε_class − ε_null), the variance of the class.

        A guidance of 1 is the class-conditional model itself, at half the cost.
        """
        if guidance == 1:
            return self.forward(x, t, y)
        both = torch.cat((y, torch.full_like(y, self.null_class)))
        outputs = self.forward(x.repeat(2, 1, 1, 1), t.repeat(2), both)
        # in float32: autocast's bfloat16 loses the difference of two nearly equal numbers
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        of_class, of_null = outputs.chunk(2)
        eps, null = of_class[:, : self.channels], of_null[:, : self.channels]
        return torch.cat((null + guidance * (eps - null), of_class[:, self.channels :]), dim=1)

    def _normalized(self) -> Iterator[tuple[nn.Parameter, bool]]:
        """Yield weights that are normalized in use, and whether the stored ones are too."""
        forced = self.config.forced_weight_normalization
        for module in self.modules():
            if isinstance(module, MPLinear | MPEmbedding) and module.normalized:
                yield module.weight, forced or module is self.label

    def mp_parameters(self) -> list[nn.Parameter]:
        """The weights that are normalized in use, without gains."""
        return [weight for weight, _ in self._normalized()]

    def gains(self) -> list[nn.Parameter]:
        """The learned gains of maps that are zero at initialization."""
        maps = (module for module in self.modules() if isinstance(module, MPLinear))
        return [linear.gain for linear in maps if linear.gain is not None]

    @torch.no_grad()
    def normalize_weights(self) -> None:
        """Forced weight normalization (EDM2 eq. 66) of all weights at once, in place.

        Called before each training step; the same as normalizing in every training forward.
        """
        weights: list[Tensor] = [weight for weight, forced in self._normalized() if forced]
        if not weights:
            return
        rows = [torch.linalg.vector_norm(weight, dim=-1, keepdim=True) for weight in weights]
        torch._foreach_add_(rows, EPS)
        torch._foreach_reciprocal_(rows)
        torch._foreach_mul_(rows, [math.sqrt(weight.shape[-1]) for weight in weights])
        torch._foreach_mul_(weights, rows)

    def compile_blocks(self) -> None:
        """`torch.compile` of the blocks, which are one program; embeddings and the rest stay eager.

        Compiled sums have another order: the numbers differ in their last bits.

        Raises:
            ConfigError: without a compiler (`check_compiler`).
        """
        check_compiler(self.patches.weight.device)
        # this also sets the compiler's own flag
        torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
        for block in self.blocks:
            block.compile()

    def fold(self) -> None:
        """Fold weight normalization into plain weights, for sampling; training must not follow."""
        for module in self.modules():
            if isinstance(module, MPLinear | MPEmbedding):
                module.fold()


def share(model: DiT) -> None:
    """Give all blocks one map S: a block's values are S(c) + E, with its own vector E.

    This is adaLN-single (PixArt-α: Chen et al., arXiv:2310.00426, section 2.3). S and E are zero at
    initialization, as each block's own map is without it; PixArt-α begins with a trained DiT's.
    """
    for block in model.blocks:
        modulation = block.get_submodule("modulation")
        assert isinstance(modulation, Modulation)
        model.modulation = model.modulation or modulation.linear
        modulation.linear = None
        modulation.embedding = nn.Parameter(torch.zeros(sum(modulation.sizes)))


def learn_uncertainty(model: DiT) -> None:
    """Add EDM2's u(σ) to the model, which weights the training loss."""
    model.uncertainty = Uncertainty(normalized=model.config.weight_normalization)
