"""The networks in whose features distances are taken."""

from __future__ import annotations

import torch

from mpdit.config import EvaluateConfig
from mpdit.data.preflight import inception_weights
from mpdit.evaluation.extractors import classifier, inception
from mpdit.evaluation.extractors.extractor import Extractor as Extractor
from mpdit.evaluation.extractors.extractor import Features as Features


def load(evaluate: EvaluateConfig, device: torch.device) -> Extractor:
    """The extractor ``digits``, ``fashion-mnist`` or ``inception`` on a device.

    Raises:
        ConfigError: when Inception's weights are not there, or are no such weights.
    """
    name = str(evaluate.extractor)
    if name == "inception":
        return inception.load(inception_weights(evaluate), device)
    return classifier.load(name, device)
