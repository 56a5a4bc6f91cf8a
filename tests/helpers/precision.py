"""A small model, and its outputs in float32 and bfloat16."""

import torch

from mpdit.catalogue import PAPERS_FLAGS, Dataset
from mpdit.model import DiT
from mpdit.modelconfig import ModelConfig

DATA = Dataset(channels=2, size=8, classes=5, extractor="digits")
TINY = {"depth": 2, "width": 32, "heads": 2, "patch_size": 4}
ALL = dict.fromkeys(PAPERS_FLAGS, True)


def build(**options) -> DiT:
    """A small model whose gains and zero weights are off their initial zero."""
    random = torch.Generator().manual_seed(0)
    model = DiT(ModelConfig.model_validate(TINY | options), DATA, generator=random)
    for parameter in model.parameters():
        if parameter.ndim == 1 or not parameter.any():
            parameter.data.normal_(std=0.5, generator=random)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(4) * 300, torch.arange(4)


def run(model: DiT, bf16: bool) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return model(*inputs()).float()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()
