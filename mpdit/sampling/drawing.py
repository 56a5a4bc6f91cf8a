"""The description of a sample set, and the drawing of its batches.

The label of sample i and its noise depend on i alone, not on the count or the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
        classes: the classes to sample.
        run: the run whose model it is.
        repeat: the number of the run's own set from which this set was derived.
        images: the number of training images of each class; None: equal numbers.
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
        """A run's own set; ``repeat`` r > 0 has its own sampling seed, from (seed, r)."""
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
        """``samples`` or ``repeat1``, …; then the differences: ``samples_guidance2_ema0.07``."""
        own = Drawing.of_run(self.run, self.repeat)
        parts = [f"repeat{self.repeat}" if self.repeat else "samples"]
        for key in (f.name for f in fields(self) if f.name not in ("run", "respacing", "images")):
            value = getattr(self, key)
            if value != getattr(own, key):
                parts.append(_PREFIX.get(key, key) + _short(value))
        return "_".join(parts)

    def record(self) -> dict[str, Any]:
        """How the set was drawn, for evaluation.jsonl.

        ``classes`` is present only where some are left out; ``respacing``, ``labels`` and
        ``guidance_interval`` only where they differ from version 0.1's, which did not record them.
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
    """Samples are NaN or infinite, because of the weights or of the way of drawing."""

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
"""The prefix of a field in a set's name, where it is not the field's name."""


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value).removesuffix(".0").replace("++", "pp")


def repeated_seed(seed: int, repeat: int) -> int:
    """The sampling seed of a run's repeat; repeat 0 has the run's own."""
    return generator(seed, "repeat", repeat).initial_seed() % 2**31 if repeat else seed


def labels(drawing: Drawing) -> Int64[np.ndarray, " count"]:
    """The label of every sample of a set; never of a class without images.

    With ``data``, every initial part of the set has the classes' proportions, by Sainte-Laguë's
    method; classes with equally many images take turns. Chosen classes take turns too.

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

    The noise is drawn on the CPU, sample by sample, so it depends neither on the batch nor on the
    device. A thread draws the next step's noise while the model computes the present step.

    Args:
        on_step: called after each of the solver's steps.
    """
    spec = drawing.run.data.spec
    shape = (spec.channels, spec.size, spec.size)
    randoms = [generator(drawing.seed, "sample", i) for i in indices]
    y = torch.from_numpy(labels(drawing)[indices.start : indices.stop]).to(device)

    def noise() -> Float[Tensor, "batch channels height width"]:
        drawn = torch.stack([torch.randn(shape, generator=random) for random in randoms])
        # pinned, so that the host does not wait for its copy
        return drawn.pin_memory() if device.type == "cuda" else drawn

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
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=drawing.precision == "bfloat16")
    with OneAhead(noise, device) as ahead, bf16:
        first = noise().to(device, non_blocking=True)
        return solver.solve(guided, first, ahead, on_step)


class OneAhead:
    """Calls a function in a thread, one call ahead of the requests for its results.

    The first call waits for the first request: solvers that add no noise need no call.
    """

    def __init__(self, draw_one: Callable[[], Tensor], device: torch.device) -> None:
        self._draw, self._device = draw_one, device
        self._next: Future[Tensor] | None = None
        self._thread = ThreadPoolExecutor(1, initializer=self._choose_gpu)

    def __enter__(self) -> OneAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _choose_gpu(self) -> None:
        """Select the thread's GPU: a new thread starts with the first GPU."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def __call__(self) -> Tensor:
        """The next result, on the device."""
        ready = self._draw() if self._next is None else self._next.result()
        self._next = self._thread.submit(self._draw)
        return ready.to(self._device, non_blocking=True)
