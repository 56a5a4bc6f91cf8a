"""A small convolutional classifier; distances are measured in its last hidden layer.

The weights beside this file were made by ``python -m mpdit.evaluation.extractors.train``, which
also wrote the test accuracy into them.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors import safe_open
from torch import Tensor, nn

from mpdit.data.latents import checksum
from mpdit.evaluation.extractors.extractor import Extractor, FeatureNetwork

FEATURES = 64


class Classifier(FeatureNetwork):
    """Three 3×3 convolutions, mean over ``pool``² fields, a hidden layer of 64, read-out."""

    def __init__(self, channels: int = 1, classes: int = 10, pool: int = 2) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1, stride=2)
        self.hidden = nn.Linear(64 * pool**2, FEATURES)
        self.out = nn.Linear(FEATURES, classes)

    def features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """Pixels in [-1, 1] → the activations of the hidden layer."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        x = F.adaptive_avg_pool2d(x, self.pool).flatten(1)  # (batch, 64·pool²)
        return F.relu(self.hidden(x))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Pixels in [-1, 1] → class logits."""
        logits: Tensor = self.out(self.features(x))
        return logits

    def look(self, images: UInt8[Tensor, "batch channels height width"]) -> tuple[Tensor, Tensor]:
        features = self.features(images / 127.5 - 1)
        return features, self.out(features)


def weights_file(name: str) -> Path:
    """The file of the shipped weights for the data set ``name``."""
    return Path(__file__).with_name(f"{name}.safetensors")


def load(name: str, device: torch.device) -> Extractor:
    """The shipped extractor ``digits`` or ``fashion-mnist`` on a device."""
    file = weights_file(name)
    with safe_open(file, "pt") as weights:
        state = {key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118
    fields = state["hidden.weight"].shape[1] // len(state["conv3.bias"])
    network = Classifier(pool=math.isqrt(fields))
    network.load_state_dict(state)
    return Extractor(
        name=name,
        weights=checksum(file)[:16],
        preprocessing="8 bits, x / 127.5 - 1",
        network=network.eval().to(device),
        device=device,
        batch_size=500,
    )
