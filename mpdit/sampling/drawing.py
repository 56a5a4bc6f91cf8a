"""What a sample set is, and the drawing of a batch of it.

The label of sample i and its noise depend on i alone: not on the count, nor on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mpdit.catalogue import SOLVERS
from mpdit.catalogue.respacing import Respacing
from mpdit.config import RunConfig
from mpdit.diffusion.objectives import objective_of
from mpdit.diffusion.process import Diffusion
from mpdit.diffusion.solvers import Heun, Solver
from mpdit.diffusion.target import Times
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.runtime.randomness import generator


@dataclass(frozen=True)
class Drawing:
    """A set of samples from one run's model. `dataclasses.replace` makes another set of it.

    Attributes:
        solver, steps: of `mpdit.diffusion.solvers`.
        guidance: 1 is unguided.
        guidance_interval: the noise levels at which guidance is applied; None: all.
        respacing: how evenly spaced timesteps are rounded; ``nearest`` where it does not matter.
        ema_std, snapshot: the weights: relative width of the average, and its training step.
        seed, count: samples 0 … count − 1 of this sampling seed.
        precision, to_uint8: as in the config.
        labels: as in the config.
        classes: those that samples are drawn of.
        run: the run whose model it is.
        repeat: which of the run's own sets this one differs from.
        images: of each class, that the run was trained on; None: as many of each.
    """

    solver: str
    steps: int
    guidance: float
    respacing: Respacing
    ema_std: float
    seed: int
    count: int
    precision: Literal["float32", "tf32", "bfloat16"]
    to_uint8: Literal["round", "truncate"]
    snapshot: int
    labels: Literal["data", "even", "uniform"]
    classes: tuple[int, ...]
    run: RunConfig = field(repr=False)
    repeat: int = 0
    images: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    guidance_interval: tuple[float, float] | None = None

    @classmethod
    def of_run(cls, config: RunConfig, repeat: int = 0) -> Drawing:
        """A run's own set; ``repeat`` r > 0 has a sampling seed of its own, from (seed, r)."""
        sample = config.sample
        return cls(
            solver=sample.solver,
            steps=sample.steps,
            guidance=sample.guidance,
            respacing=sample.used_respacing,
            ema_std=sample.ema_std,
            seed=repeated_seed(config.seed, repeat),
            count=sample.count,
            precision=sample.precision,
            to_uint8=sample.to_uint8,
            snapshot=config.train.steps,
            labels=sample.labels,
            classes=tuple(range(config.data.spec.classes)),
            run=config,
            repeat=repeat,
            guidance_interval=sample.guidance_interval,
        )

    @property
    def name(self) -> str:
        """``samples`` or ``repeat1``, …; then what differs: ``samples_guidance2_ema0.07``."""
        own = Drawing.of_run(self.run, self.repeat)
        parts = [f"repeat{self.repeat}" if self.repeat else "samples"]
        for key in (f.name for f in fields(self) if f.name not in ("run", "respacing", "images")):
            value = getattr(self, key)
            if value != getattr(own, key):
                parts.append(_PREFIX.get(key, key) + _short(value))
        return "_".join(parts)

    def record(self) -> dict[str, Any]:
        """How the set was drawn, for evaluation.jsonl.

        Classes only where they are not all; ``respacing``, ``labels`` and ``guidance_interval``
        only where they are not those of version 0.1, whose records do not have them.
        """
        left_out = ["run", "repeat", "count", "images"]
        if self.classes == tuple(range(self.run.data.spec.classes)):
            left_out.append("classes")
        if self.respacing == "nearest":
            left_out.append("respacing")
        if self.labels == "even":
            left_out.append("labels")
        if self.guidance_interval is None:
            left_out.append("guidance_interval")
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {"sampler": record.pop("solver"), **record}


class NonFiniteSamplesError(ConfigError):
    """Samples that are not finite: the weights, or the way of drawing them, are at fault."""

    def __init__(self, drawing: Drawing, indices: range) -> None:
        super().__init__(
            f"samples {indices.start}-{indices.stop - 1} of {drawing.name} are not finite numbers "
            f"(EMA width {drawing.ema_std:g}, step {drawing.snapshot}, guidance "
            f"{drawing.guidance:g}, {drawing.precision}): see in metrics.jsonl whether training "
            "diverged; an earlier snapshot, less guidance or float32 may help"
        )


_PREFIX = {
    "solver": "",
    "guidance_interval": "interval",
    "ema_std": "ema",
    "precision": "",
    "to_uint8": "",
    "snapshot": "at",
}
"""Of a part of a set's name, where it is not the field itself."""


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value).removesuffix(".0").replace("++", "pp")


def repeated_seed(seed: int, repeat: int) -> int:
    """The sampling seed of a run's repeat; repeat 0 has the run's own."""
    return generator(seed, "repeat", repeat).initial_seed() % 2**31 if repeat else seed


def labels(drawing: Drawing) -> Int64[np.ndarray, " count"]:
    """The label of every sample of a set; never one of a class without images.

    Those of ``data`` follow the classes' proportions in every first part of the set, by
    Sainte-Laguë's method: in turn, where all have as many images. A choice of
    classes is drawn in turn, too.

    Raises:
        ConfigError: when none of the classes has images.
    """
    images = drawing.images
    classes = np.array([c for c in drawing.classes if images is None or images[c]])
    if not len(classes):
        chosen = ", ".join(map(str, drawing.classes))
        raise ConfigError(f"the training data have no image of class {chosen}", "--classes")
    if drawing.labels == "uniform":
        random = generator(drawing.seed, "labels", 0)
        places = torch.randint(len(classes), (drawing.count,), generator=random)
        return np.take(classes, places.numpy())
    if drawing.labels == "even" or images is None or len(drawing.classes) < len(images):
        return np.resize(classes, drawing.count)
    share = np.array(images)[classes] / np.array(images)[classes].sum()
    copies = np.ceil(drawing.count * share).astype(np.int64) + 1
    due = np.concatenate([(np.arange(n) + 0.5) / s for n, s in zip(copies, share, strict=True)])
    order = np.argsort(due, kind="stable")[: drawing.count]
    return np.take(np.repeat(classes, copies), order)


@torch.inference_mode()
def draw(
    model: DiT,
    drawing: Drawing,
    indices: range,
    device: torch.device,
    on_step: Callable[[], None] = lambda: None,
) -> Float[Tensor, "batch channels height width"]:
    """The samples with these indices, as the model makes them: pixels in [-1, 1], not clipped.

    The noise is drawn on the CPU, sample by sample: it knows neither batch nor device.

    Args:
        on_step: called after each of the solver's steps.
    """
    spec = drawing.run.data.spec
    shape = (spec.channels, spec.size, spec.size)
    randoms = [generator(drawing.seed, "sample", i) for i in indices]
    y = torch.from_numpy(labels(drawing)[indices.start : indices.stop]).to(device)

    def noise() -> Float[Tensor, "batch channels height width"]:
        drawn = torch.stack([torch.randn(shape, generator=random) for random in randoms])
        if device.type == "cuda":  # pinned, so that the next steps' noise is drawn meanwhile
            return drawn.pin_memory().to(device, non_blocking=True)
        return drawn

    diffusion = Diffusion(respacing=drawing.respacing).to(device)
    objective = objective_of(drawing.run, diffusion)

    def guided(
        x: Float[Tensor, "batch channels height width"], t: Times
    ) -> Float[Tensor, "batch outputs height width"]:
        guidance = drawing.guidance
        if drawing.guidance_interval is not None:
            low, high = drawing.guidance_interval
            guidance = guidance if low < objective.noise_level(t[:1]).item() <= high else 1.0
        output = model.guided(*objective.inputs(x, t), y, guidance).float()
        return objective.prediction(output, x, t)

    row = SOLVERS.find(drawing.solver)
    process = objective if row.continuous else diffusion
    solver: Solver | Heun = row.load()(process, drawing.steps)
    # entered once: autocast keeps the weights that it has cast until it is left
    with torch.autocast(device.type, torch.bfloat16, enabled=drawing.precision == "bfloat16"):
        return solver.solve(guided, noise(), noise, on_step)
