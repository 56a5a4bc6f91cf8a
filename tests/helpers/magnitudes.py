"""The magnitudes of models at random initialization."""

import math

import torch

from mpdit.catalogue import Dataset
from mpdit.model import DiT
from mpdit.modelconfig import ModelConfig
from mpdit.training.probe import Probe


def probed(**options) -> dict[str, torch.Tensor]:
    """Each site's magnitude by block, DiT-S/2 at random initialization, the mean of six models.

    The latents have unit variance, 0.3 of it between the channel means of images: about what real
    ones have. (Where all pixels are independent, tokens differ more and are averaged away more.)
    """
    latents = Dataset(channels=4, size=16, classes=1000, extractor="inception")
    options = {"name": "DiT-S/2", "preset": "mods", **options}
    models = []
    for seed in range(6):
        random = torch.Generator().manual_seed(seed)
        model = DiT(ModelConfig.model_validate(options), latents, generator=random)
        means, pixels = (torch.randn(8, 4, side, side, generator=random) for side in (1, 16))
        t, y = (torch.randint(0, 1000, (8,), generator=random) for _ in range(2))
        measured = Probe(math.sqrt(0.3) * means + math.sqrt(0.7) * pixels, t, y)(model)
        models.append(measured)
    return {site: torch.tensor([m[site] for m in models]).mean(0) for site in models[0]}
