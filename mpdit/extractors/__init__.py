"""The networks in whose features distances are taken."""

from __future__ import annotations

import torch

from mpdit.config import EvaluateConfig
from mpdit.extractors import classifier, inception
from mpdit.extractors.extractor import Extractor as Extractor
from mpdit.extractors.extractor import Features as Features
from mpdit.prerequisites import inception_weights


def load(evaluate: EvaluateConfig, device: torch.device) -> Extractor:
    """The extractor ``digits``, ``fashion-mnist`` or ``inception`` on a device.

    Raises:
        ConfigError: when Inception's weights are not there, or are no such weights.
    """
    name = str(evaluate.extractor)
    if name == "inception":
        return inception.load(inception_weights(evaluate), device)
    return classifier.load(name, device)
