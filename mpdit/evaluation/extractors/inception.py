"""Inception v3 as TensorFlow's 2015 graph has it, the network of FID, through torch-fidelity.

No job downloads its weights: `mpdit.data.preflight` finds their file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from mpdit.catalogue.methods import INCEPTION
from mpdit.data.latents import checksum
from mpdit.evaluation.extractors.extractor import Extractor, FeatureNetwork, reading_weights

LAYERS = ("2048", "logits_unbiased")
"""torch-fidelity's layers for FID, KID and precision/recall, and for the Inception score."""


class Inception(FeatureNetwork):
    """torch-fidelity's network; images of any size, grey ones as three equal channels."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = FeatureExtractorInceptionV3(
            "inception", list(LAYERS), feature_extractor_weights_path=str(weights)
        )

    def look(self, images: UInt8[Tensor, "batch channels height width"]) -> tuple[Tensor, Tensor]:
        pooled, logits = self.network(images.expand(-1, 3, -1, -1))
        return pooled, logits


def load(file: Path, device: torch.device) -> Extractor:
    """Inception with the weights of a file.

    Raises:
        ConfigError: when they are not its weights.
    """
    with reading_weights(file, f"Inception's weights as torch-fidelity has them ({INCEPTION.url})"):
        # torch-fidelity unpickles any file, so only tensors may get there
        torch.load(file, map_location="meta", weights_only=True)
        network = Inception(file)
    return Extractor(
        name="inception",
        weights=checksum(file)[:16],
        preprocessing="8 bits, bilinear to 299x299 as TensorFlow 1, (x - 128) / 128",
        network=network.to(device),
        device=device,
        batch_size=50,
    )
