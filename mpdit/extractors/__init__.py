"""The networks in whose features distances are taken."""

from __future__ import annotations

import torch

from mpdit.config import ConfigError, RunConfig
from mpdit.extractors import classifier, inception
from mpdit.extractors.extractor import Extractor as Extractor
from mpdit.extractors.extractor import Features as Features


def check_available(config: RunConfig) -> None:
    """Whether the run's extractor is there and takes its images, without loading it.

    Raises:
        ConfigError: saying which file to put where, or which extractor to take.
    """
    name, channels = config.evaluate.extractor, config.data.spec.channels
    if name == "inception":
        inception.weights_file()
    elif channels != 1:
        raise ConfigError(
            f"{name} takes grey images, those of {config.data.name} have colours: use inception",
            "evaluate.extractor",
        )


def load(name: str, device: torch.device) -> Extractor:
    """The extractor ``digits``, ``fashion-mnist`` or ``inception`` on a device.

    Raises:
        ConfigError: when Inception's weights are not there, or are no such weights.
    """
    return inception.load(device) if name == "inception" else classifier.load(name, device)
