"""DINOv2 ViT-L/14 (Oquab et al., arXiv:2304.07193), the network of FD-DINOv2 (arXiv:2306.04675).

Images are prepared by torch-fidelity's extractor. Torch-fidelity itself downloads the network's
code and weights from GitHub when it is built: here the network is defined in this file, and takes
the published weights from a local file (`mpdit.data.preflight`).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from mpdit.catalogue.methods import DINOV2
from mpdit.data.latents import checksum
from mpdit.evaluation.extractors.extractor import Extractor, FeatureNetwork, reading_weights

Tokens = Float[Tensor, "batch tokens width"]

SIZE = (1024, 24, 16)
"""Width, blocks and heads of ViT-L."""
PATCH = 14
TRAINED_GRID = 37
"""Patches along a side of the images that the position encodings were trained for (518 pixels)."""


class EncoderBlock(nn.Module):
    """A pre-norm transformer block with a learned scale on each branch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(width)}) for _ in range(2))

    def forward(self, x: Tokens) -> Tokens:
        x = x + self.ls1["gamma"] * self._attend(self.norm1(x))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x)))
        out: Tensor = x + self.ls2["gamma"] * self.mlp["fc2"](hidden)
        return out

    def _attend(self, x: Tokens) -> Tokens:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, tokens, channels)
            for part in self.attn["qkv"](x).chunk(3, dim=-1)
        )
        heads = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.attn["proj"](heads.transpose(1, 2).flatten(2))
        return out


class VisionTransformer(nn.Module):
    """Normalized images → the normalized class token; parameters are named as in the weights."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of training only
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_GRID**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch width"]:
        patches = self.patch_embed["proj"](images)
        tokens = patches.flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(images), -1, -1), tokens), dim=1)
        x = x + self._positions(patches.shape[-1])
        for block in self.blocks:
            x = block(x)
        token: Tensor = self.norm(x[:, 0])
        return token

    def _positions(self, side: int) -> Float[Tensor, "1 tokens width"]:
        """The position encodings on a grid of ``side`` patches."""
        of_class, of_patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = of_patches.transpose(1, 2).unflatten(2, (TRAINED_GRID, TRAINED_GRID))
        # The published network adds 0.1 to the side, so that its rounding down is safe. The places
        # that are interpolated depend on it.
        grid = F.interpolate(grid, scale_factor=(side + 0.1) / TRAINED_GRID, mode="bicubic")
        return torch.cat((of_class, grid.flatten(2).transpose(1, 2)), dim=1)


class Prepared(FeatureExtractorDinoV2):  # type: ignore[misc]  # torch-fidelity has no types
    """torch-fidelity's extractor around a network that is given, not downloaded."""

    def __init__(self, network: VisionTransformer) -> None:
        FeatureExtractorBase.__init__(self, "dinov2-vit-l-14", ["dinov2"])
        self.feature_extractor_internal_dtype = torch.float32
        self.model = network


class Dinov2(FeatureNetwork):
    """Images of any size, grey ones as three equal channels; no classes."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network = Prepared(network)

    def look(self, images: UInt8[Tensor, "batch channels height width"]) -> tuple[Tensor, Tensor]:
        (features,) = self.network(images.expand(-1, 3, -1, -1))
        return features, features[:, :0]


def load(file: Path, device: torch.device) -> Extractor:
    """DINOv2 with the weights of a file.

    Raises:
        ConfigError: when they are not its weights.
    """
    with reading_weights(file, f"the weights of DINOv2 ViT-L/14 ({DINOV2.url})"):
        state = torch.load(file, map_location="cpu", weights_only=True)
        with torch.device("meta"):  # 1.2 GB need not be initialized
            network = VisionTransformer(*SIZE)
        network.load_state_dict(state, assign=True)
    return Extractor(
        name="dinov2",
        weights=checksum(file)[:16],
        preprocessing="8 bits, bilinear to 224x224 as TensorFlow 1, ImageNet's mean and deviation",
        network=Dinov2(network.requires_grad_(False).eval()).to(device),
        device=device,
        batch_size=50,
    )
