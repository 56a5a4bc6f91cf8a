"""The forward pass of a training step, by one process or as one replica of several."""

from __future__ import annotations

import inspect
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mpdit.diffusion.target import Times
from mpdit.model import DiT
from mpdit.model.dit import Images, Indices


class Learner(nn.Module):
    """All that a training step computes with a model, in one forward pass, as DDP needs it."""

    def __init__(self, model: DiT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x: Images, t: Times, y: Indices
    ) -> tuple[Float[Tensor, "batch outputs height width"], Float[Tensor, " batch"] | None]:
        """The model's output, and its uncertainty u(t), where it learns one."""
        uncertainty = self.model.uncertainty
        return self.model(x, t, y), None if uncertainty is None else uncertainty(t)


def replicate(learner: Learner) -> DistributedDataParallel:
    """The learner with gradients averaged over all processes, while the backward pass runs."""
    config = learner.model.config
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    synced = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    not_sent: dict[str, Any] = {synced: False}  # fixed tables: else sent in every forward pass
    return DistributedDataParallel(
        learner,
        gradient_as_bucket_view=True,
        **not_sent,
        # without any modulation the conditioning's embedders have no part in the output
        find_unused_parameters=not (config.parts or config.final_parts),
    )
