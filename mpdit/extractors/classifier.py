"""A small convolutional classifier; its last hidden layer is where distances are taken.

The weights beside this file were made by ``python -m mpdit.extractors.train``, which also wrote
the test accuracy into them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from safetensors import safe_open
from torch import Tensor, nn

FEATURES = 64


class Classifier(nn.Module):
    """Three 3×3 convolutions, mean over positions, one hidden layer of 64, linear read-out."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1, stride=2)
        self.hidden = nn.Linear(64 * 4, FEATURES)
        self.out = nn.Linear(FEATURES, classes)

    def features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """Pixels in [-1, 1] → the activations of the hidden layer."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)  # (batch, 64·2·2): quadrants keep their place
        return F.relu(self.hidden(x))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Pixels in [-1, 1] → class logits."""
        logits: Tensor = self.out(self.features(x))
        return logits


@dataclass(frozen=True)
class Extractor:
    """A shipped classifier with the hash of its weights and its stated test accuracy."""

    name: str
    weights: str
    accuracy: float
    classifier: Classifier

    @torch.no_grad()
    def features(
        self, images: UInt8[np.ndarray, "images height width channels"]
    ) -> Float32[np.ndarray, "images features"]:
        """Features of 8-bit images: real and generated ones go through the same rounding."""
        chunks = [
            self.classifier.features(
                torch.from_numpy(images[i : i + 500]).permute(0, 3, 1, 2) / 127.5 - 1
            )
            for i in range(0, len(images), 500)
        ]
        return torch.cat(chunks).numpy()


def weights_file(name: str) -> Path:
    """Where the shipped weights of ``name`` (a data set's) lie."""
    return Path(__file__).with_name(f"{name}.safetensors")


def load(name: str) -> Extractor:
    """The shipped extractor ``digits`` or ``fashion-mnist``."""
    file = weights_file(name)
    classifier = Classifier()
    with safe_open(file, "pt") as weights:
        classifier.load_state_dict({key: weights.get_tensor(key) for key in weights.keys()})  # noqa: SIM118
        accuracy = float(weights.metadata()["test_accuracy"])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return Extractor(name, digest, accuracy, classifier.eval())
