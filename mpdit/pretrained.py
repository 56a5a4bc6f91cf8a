"""A trained model in memory, from a run or from what `mpdit export` wrote: ``mpdit.load``.

digits = mpdit.load("results/quickstart/E-all_s0-3fa91c02d1e7")
images = digits.sample(classes=[3], count=16, guidance=2)
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from mpdit import extensions
from mpdit.config import RunConfig, read_run
from mpdit.data import datasets
from mpdit.data.latents import Manifest, read_manifest
from mpdit.disk.rundir import RunDir, find_run
from mpdit.encoding.decoder import Decode, Decoder
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.runtime.devices import prepare, set_precision
from mpdit.sampling.drawing import NonFiniteSamplesError, draw
from mpdit.sampling.request import asked
from mpdit.sampling.sampler import load_average
from mpdit.sampling.sampleset import to_uint8

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""The files of an exported model, under the names that huggingface_hub looks for."""


class Exported(BaseModel):
    """The content of an exported model's config.json.

    Attributes:
        run: the run's resolved config, without paths of the machine that trained it.
        ema_std, step: the relative width of the weights' average, and its training step.
        sha256: the checksum of model.safetensors.
        images: the number of training images of each class; None: not recorded.
        class_names: by label; None where the data have none.
        latents: the manifest of the latent store, for decoding; None for pixels.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: dict[str, Any]
    ema_std: float
    step: int
    sha256: str = ""
    images: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    latents: Manifest | None = None


@dataclass(frozen=True)
class Pretrained:
    """A trained model, and how its run was configured.

    Attributes:
        model: the network with averaged weights, on the GPU if there is one, in evaluation mode.
            ``model(x, t, y)`` takes noisy images (B, C, H, W), times (B,) and labels (B,).
        config: the run's resolved config.
        ema_std: relative width of the average of the weights.
        step: the training step after which it was taken.
        class_names: by label; None where the data have none.
    """

    model: DiT
    config: RunConfig
    ema_std: float
    step: int
    class_names: tuple[str, ...] | None = None
    images: tuple[int, ...] | None = field(default=None, repr=False)
    latents: Manifest | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    @cached_property
    def _folded(self) -> DiT:
        model = copy.deepcopy(self.model)
        model.fold()
        return model

    @cached_property
    def _decode(self) -> Decode:
        return Decoder(self.latents, self.device) if self.latents else lambda x: x

    def sample(
        self,
        classes: Sequence[int] | None = None,
        *,
        count: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        steps: int | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
    ) -> UInt8[np.ndarray, "count height width channels"]:
        """Draw images. Arguments that are not given have the values of the run's config.

        With the run's count and batch size the images are the run's own samples, bit for bit.
        PyTorch is set to compute deterministically, for the whole process.

        Args:
            classes: labels, in turn; None: all classes, as the run draws them.
            count: images; None: one a class.
            guidance: 1 is unguided.
            solver, steps: of `mpdit.diffusion.solvers`; docs/sampling.md lists them.
            seed: of the noise: image i of a seed has the same noise in every model.
            batch_size: images drawn at once.

        Returns:
            ``count`` images of height × width × channels (1 grey, 3 RGB), uint8 from 0 to 255.

        Raises:
            ConfigError: about the argument that is wrong.
            NonFiniteSamplesError: when images are not finite numbers.
        """
        if count is None:
            count = len(classes) if classes is not None else self.config.data.spec.classes
        told = {
            "count": count,
            "guidance": None if guidance is None else float(guidance),
            "solver": solver,
            "steps": steps,
            "batch_size": batch_size,
            "ema_std": self.ema_std,
        }
        given = {name: value for name, value in told.items() if value is not None}
        config, drawing = asked(self.config, given, seed, classes)
        drawing = replace(drawing, snapshot=self.step, images=self.images)
        prepare("float32")
        set_precision(drawing.precision, "sample.precision")
        drawn = []
        for start in range(0, count, config.sample.batch_size):
            indices = range(start, min(start + config.sample.batch_size, count))
            x = self._decode(draw(self._folded, drawing, indices, self.device))
            if not x.isfinite().all():
                raise NonFiniteSamplesError(drawing, indices)
            drawn.append(to_uint8(x.cpu().numpy(), drawing.to_uint8))
        return np.concatenate(drawn)


def load(
    place: str | Path,
    *,
    ema_std: float | None = None,
    step: int | None = None,
    results: str | Path = "results",
) -> Pretrained:
    """A trained model, from a run or from the folder of an exported one.

    The user's extensions that the run was made with are executed.

    Args:
        place: a run's folder, name or id; or a folder that ``mpdit export`` has written.
        ema_std: of a run, the relative width of the weights' average; None: that of its samples.
        step: of a run, the training step of the average; None: the last.
        results: the folder of all studies, for a run's name or id.

    Raises:
        ConfigError: when there is no such model, or its files are damaged.
    """
    folder = Path(place)
    if (folder / CONFIG).is_file():
        if ema_std is not None or step is not None:
            raise ConfigError(f"{folder} is an exported model: it has one average of the weights")
        return load_exported(folder)
    run = find_run(str(place), Path(results)) if not folder.is_dir() else RunDir(folder)
    return load_run(run, ema_std, step)


def load_run(run: RunDir, ema_std: float | None = None, step: int | None = None) -> Pretrained:
    """A run's model; the arguments are those of `load`."""
    config = run.load()
    std = config.sample.ema_std if ema_std is None else ema_std
    at = config.train.steps if step is None else step
    model = load_average(run, std, at, prepare("float32"))
    names = run.class_names()
    latents = None
    if datasets.is_latents(config.data):
        latents = read_manifest(datasets.place(config.data))
    named = tuple(names) if names else None
    return Pretrained(model, config, std, at, named, run.images_by_class(), latents)


def load_exported(folder: Path) -> Pretrained:
    """An exported model.

    Raises:
        ConfigError: when a file is missing or damaged.
    """
    about = read_exported(folder)
    config = read_run(about.run)
    extensions.load_copies(folder, config.extensions)
    model = DiT(config.model, config.data.spec, generator=torch.Generator())
    file = folder / WEIGHTS
    try:
        content = file.read_bytes()
        if about.sha256 and hashlib.sha256(content).hexdigest() != about.sha256:
            raise ConfigError(f"{file} is damaged: it is not what was exported")
        model.load_state_dict(load_file(file))
    except FileNotFoundError:
        raise ConfigError(f"{folder} lacks {WEIGHTS}. Export the run again") from None
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(f"{file} is damaged ({str(error).splitlines()[0]})") from None
    return of_model(model.to(prepare("float32")), about)


def read_exported(folder: Path) -> Exported:
    """An exported model's config.json.

    Raises:
        ConfigError: when it is not one.
    """
    try:
        return Exported.model_validate_json((folder / CONFIG).read_bytes())
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(f"{folder / CONFIG} is not an exported model's: {where}") from None


def of_model(model: DiT, about: Exported) -> Pretrained:
    """A model with loaded weights, described by its config.json."""
    config = read_run(about.run)
    return Pretrained(
        model.eval(),
        config,
        about.ema_std,
        about.step,
        about.class_names,
        about.images,
        about.latents,
    )
