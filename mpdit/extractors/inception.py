"""Inception v3 as TensorFlow's 2015 graph has it, the network of FID, through torch-fidelity.

Its weights are never downloaded by a job; they lie at ``$MPDIT_INCEPTION``, or in torch's hub
cache under the name by which torch-fidelity keeps them.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from urllib.parse import urlparse

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)

from mpdit.config import ConfigError
from mpdit.extractors.extractor import Extractor, FeatureNetwork, file_hash

VARIABLE = "MPDIT_INCEPTION"
FILE_NAME = Path(urlparse(URL_INCEPTION_V3).path).name
LAYERS = ("2048", "logits_unbiased")
"""What torch-fidelity takes for FID, KID and precision/recall, and for the Inception score."""


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


def weights_file() -> Path:
    """Where Inception's weights are.

    Raises:
        ConfigError: saying which file to put where.
    """
    named = os.environ.get(VARIABLE)
    file = Path(named) if named else Path(torch.hub.get_dir(), "checkpoints", FILE_NAME)
    if not file.is_file():
        raise ConfigError(
            f"Inception's weights are not at {file}. Download {FILE_NAME} (95 MB) from "
            f"{URL_INCEPTION_V3} and put it there, or set {VARIABLE} to where it lies"
        )
    return file


def load(device: torch.device) -> Extractor:
    """Inception with the weights of :func:`weights_file`.

    Raises:
        ConfigError: when they are not there, or are not its weights.
    """
    file = weights_file()
    try:
        # torch-fidelity unpickles whatever the file holds: only tensors may come that far
        torch.load(file, map_location="meta", weights_only=True)
        network = Inception(file)
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{file} does not hold Inception's weights as torch-fidelity has them "
            f"({URL_INCEPTION_V3}): {reason}"
        ) from None
    return Extractor(
        name="inception",
        weights=file_hash(file),
        preprocessing="8 bits, bilinear to 299x299 as TensorFlow 1, (x - 128) / 128",
        network=network.to(device),
        device=device,
        batch_size=50,
    )
