"""Exported models as huggingface_hub loads them, from a folder or from the hub.

model = HubModel.from_pretrained("somebody/mp-digits")
images = model.pretrained().sample(classes=[3], guidance=2)
"""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin

from mpdit.config import read_run
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.pretrained import Exported, Pretrained, of_model


class HubModel(DiT, PyTorchModelHubMixin, library_name="mpdit", tags=["diffusion", "dit"]):
    """The network of an exported model; ``from_pretrained`` gives it its weights.

    Args:
        about: the keys of config.json (`Exported`).

    Raises:
        ConfigError: when the run used extensions: foreign code is not executed automatically.
    """

    def __init__(self, **about: Any) -> None:
        told = Exported.model_validate(about)
        config = read_run(told.run)
        if config.extensions:
            raise ConfigError(
                "this model uses extensions, which are Python files of its author. Read them, and "
                "load its folder with mpdit.load"
            )
        super().__init__(config.model, config.data.spec, generator=torch.Generator())
        self.about = told

    def pretrained(self) -> Pretrained:
        """The same model with its run's config, which can draw samples."""
        return of_model(self, self.about)
