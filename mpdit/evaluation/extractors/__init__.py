"""The networks in whose features distances are taken."""

from __future__ import annotations

import torch

from mpdit.catalogue import EXTRACTORS
from mpdit.config import EvaluateConfig
from mpdit.evaluation.extractors.extractor import Extractor


def load(evaluate: EvaluateConfig, device: torch.device) -> Extractor:
    """The extractor that a config names, on a device.

    Raises:
        ConfigError: when the extractor's weights do not exist, or are not its weights.
    """
    found: Extractor = EXTRACTORS.find(evaluate.extractor).load()(evaluate, device)
    return found
