"""The networks in whose features distances are measured."""

from __future__ import annotations

import torch

from mpdit.catalogue import EXTRACTORS
from mpdit.config import EvaluateConfig
from mpdit.data.preflight import weights_file
from mpdit.evaluation.extractors.extractor import Extractor


def load(evaluate: EvaluateConfig, device: torch.device) -> Extractor:
    """The extractor that a config names, on a device.

    Raises:
        ConfigError: when the extractor's weights do not exist, or are not its weights.
    """
    row = EXTRACTORS.find(evaluate.extractor)
    source = row.name if row.weights is None else weights_file(evaluate)
    found: Extractor = row.load()(source, device)
    return found
