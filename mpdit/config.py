"""The config of one run, as strict, typed, immutable values, and its identity.

A run is a point of the ablation grid: model, data, train, sample, evaluate, seed. Every value that
is derived from another (warm-up from the number of steps, the final layer's modulation from the
blocks') is resolved when the config is made. So the written config is complete, and its hash means
the same science in later versions. No torch is imported here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from mpdit.catalogue import (
    DATASETS,
    EXTRACTORS,
    FLAGS,
    METRICS,
    OBJECTIVES,
    PAPERS_FLAGS,
    SOLVERS,
    Dataset,
)
from mpdit.catalogue.respacing import Respacing
from mpdit.errors import explain
from mpdit.extensions import Extension, reading, used
from mpdit.modelconfig import ModelConfig
from mpdit.section import (
    ADDED,
    HOW,
    Formerly,
    How,
    Later,
    Place,
    Positive,
    Section,
    marks,
    named_in,
)
from mpdit.trainconfig import Std, TrainConfig

Level = Annotated[float, Field(ge=0)]


class DataConfig(Section):
    """The data. ``path`` is its place on this machine and not part of the identity.

    ``latents`` and ``folder`` (images, a sub-folder per class) can have any shape, which is set by
    ``channels``, ``size`` and ``classes``; the other data sets have their own shape.
    """

    name: Annotated[str, named_in(DATASETS)]
    """The data set."""
    path: Annotated[Place | None, HOW] = None
    """The folder or file that holds the data; None: $MPDIT_DATA/NAME."""
    channels: Positive | None = None
    """Channels of an image or latent, for ``folder`` and ``latents`` only."""
    size: Positive | None = None
    """Side of an image or latent in pixels, for ``folder`` and ``latents`` only."""
    classes: Positive | None = None
    """Number of classes, for ``folder`` and ``latents`` only."""
    _shape: Dataset = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _shape_where_it_is_free(self) -> DataConfig:
        shape = DATASETS[self.name].shape
        given = [value for value in (self.channels, self.size, self.classes) if value is not None]
        if shape is None and len(given) < 3:
            raise ValueError(f"{self.name} needs channels, size and classes")
        if shape is not None and given:
            raise ValueError(f"{self.name} has its own channels, size and classes")
        self._shape = shape or Dataset(given[0], given[1], given[2], extractor="inception")
        return self

    @property
    def spec(self) -> Dataset:
        return self._shape


class SampleConfig(Section):
    """How samples are drawn from the EMA weights, with classifier-free guidance."""

    count: Positive = 10_000
    """Samples of each set."""
    solver: Annotated[str, named_in(SOLVERS)] = "ddpm"
    """The solver."""
    steps: Annotated[int, Field(gt=0, le=1000)] = 250
    """Steps of the solver."""
    guidance: Annotated[float, Field(ge=0)] = 1.5
    """Scale of classifier-free guidance; 1 is unguided (and costs half)."""
    guidance_interval: Annotated[
        tuple[Level, Level] | None, Field(strict=False), Later(as_before=None)
    ] = None
    """Noise levels σ (the noise's standard deviation over the signal's factor) between which
    guidance is applied: lower < σ ≤ upper. None: at all levels. The first level of
    objective ``flow`` is infinite, so no interval includes it. It has no effect if guidance is
    1."""
    labels: Annotated[Literal["data", "even", "uniform"], Later(as_before="even")] = "data"
    """``data``: in the train split's proportions; ``even``: all classes in turn, as in version 0.1;
    ``uniform``: each label drawn at random, uniformly, as for the official code's FID."""
    respacing: Annotated[Respacing, Later(as_before="nearest")] = "dit"
    """How the positions of evenly spaced timesteps are rounded. Version 0.1 used ``nearest``."""
    ema_std: Std = 0.05
    """Relative width of the averaged weights: one of train.ema_stds as it was stored, any other by
    reconstruction."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of matrix products, as train.precision."""
    to_uint8: Literal["round", "truncate"] = "round"
    """How a sample's values are converted to bytes. ``truncate`` is the official code's way, for
    comparison."""
    batch_size: Annotated[Positive, HOW] = 250
    """Samples that are drawn at once."""
    compile: Annotated[bool, HOW] = False
    """`torch.compile` of the blocks."""
    _used_respacing: Respacing = PrivateAttr()
    _passes: int = PrivateAttr()

    @field_validator("guidance_interval", mode="before")
    @classmethod
    def _two(cls, interval: Any) -> Any:
        if interval is not None and (not isinstance(interval, list | tuple) or len(interval) != 2):
            raise ValueError(f"should be two noise levels, such as [0.3, 5], not {interval!r}")
        return interval

    @field_validator("guidance_interval")
    @classmethod
    def _rising(cls, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval is not None and not interval[0] < interval[1]:
            raise ValueError(f"should rise, not {list(interval)}")
        return interval

    @model_validator(mode="after")
    def _interval_where_it_matters(self) -> SampleConfig:
        if self.guidance == 1:
            self.fill(guidance_interval=None)
        return self

    @model_validator(mode="after")
    def _of_the_solver(self) -> SampleConfig:
        matters = SOLVERS[self.solver].depends_on_respacing(self.steps)
        self._used_respacing = self.respacing if matters else "nearest"
        self._passes = SOLVERS[self.solver].passes(self.steps)
        return self

    @property
    def passes(self) -> int:
        """How often the solver evaluates the model for a sample."""
        return self._passes

    @property
    def used_respacing(self) -> Respacing:
        """``respacing``, or ``nearest`` where its values give the same timesteps."""
        return self._used_respacing

    def identity(self) -> dict[str, Any]:
        """The section's part of a run's identity, with `used_respacing`."""
        tree = super().identity()
        if self.used_respacing == "nearest":
            tree.pop("respacing", None)
        return tree


class EvaluateConfig(Section):
    """The features and metrics that compare samples with real images, and the repeats."""

    extractor: Annotated[str, named_in(EXTRACTORS)] | None = None
    """The network that extracts features; None: the data set's own."""
    metrics: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("fd",)
    """The metrics, each once, in the table's order."""
    repeats: Positive = 1
    """Number of sample sets, each with its own sampling seed; their spread is sampling noise."""
    inception: Annotated[Place | None, HOW] = None
    """The file of Inception's weights; None: $MPDIT_INCEPTION, else torch's cache."""
    dinov2: Annotated[Place | None, HOW, ADDED] = None
    """The file of DINOv2's weights; None: $MPDIT_DINOV2, else torch's cache."""

    @field_validator("metrics")
    @classmethod
    def _in_order(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        wanted = {METRICS.find(metric).name for metric in metrics}
        return tuple(metric for metric in METRICS if metric in wanted)


class RunConfig(Section):
    """One complete run: model, data, training, sampling, evaluation, seed."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    extensions: Annotated[tuple[Extension, ...], Field(strict=False), Later(as_before=[])] = ()
    """The user's files that this run uses; their SHA-256 is part of its identity."""

    @model_validator(mode="wrap")
    @classmethod
    def _with_extensions(cls, data: Any, build: ModelWrapValidatorHandler[RunConfig]) -> RunConfig:
        given = data.get("extensions", ()) if isinstance(data, Mapping) else ()
        if not isinstance(given, list | tuple):
            raise ValueError(f"extensions should be a list, not {given!r}")
        listed = [Extension.model_validate(one) for one in given]
        with reading(listed):
            run = build({**data, "extensions": listed} if listed else data)
            run._check_continuous()
            run._check_uncertainty()
        return run

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        spec = self.data.spec
        if spec.size % self.model.patch_size:
            raise ValueError(
                f"model.patch_size {self.model.patch_size} does not divide "
                f"the {spec.size}x{spec.size} images of {self.data.name}"
            )
        if self.evaluate.extractor is None:
            told = self.evaluate.model_dump() | {"extractor": spec.extractor}
            self.fill(evaluate=EvaluateConfig.model_validate(told))
        if not self.model.has_gains:
            rate = self.train.learning_rate
            self.fill(train=self.train.model_copy(update={"gain_learning_rate": rate}))
        self.fill(extensions=used(self.extensions, self._names()))
        return self

    def _check_continuous(self) -> None:
        """Check that the solver and the time embedding fit the objective's times."""
        name, solver = self.train.objective, SOLVERS[self.sample.solver]
        continuous = OBJECTIVES[name].continuous
        if solver.continuous != continuous:
            fitting = [row.name for row in SOLVERS.values() if row.continuous == continuous]
            raise ValueError(
                f"sample.solver {solver.name} cannot sample a model of train.objective {name}. "
                f"Set sample.solver to {' or '.join(fitting)}"
            )
        if continuous and self.model.time_embedding == "table":
            raise ValueError(
                "model.time_embedding table (mp_embedding's) has a row for each of 1000 timesteps, "
                f"but train.objective {name} has continuous times. Set model.time_embedding to "
                "mp_fourier"
            )

    def _check_uncertainty(self) -> None:
        """Check that the flag fits the objective, whose loss it weights."""
        if "learned_uncertainty" in self.model.added_flags and self.train.objective != "edm":
            raise ValueError(
                "learned_uncertainty weights the loss of train.objective edm, not that of "
                f"{self.train.objective}. Set train.objective to edm, or leave it out"
            )

    def _names(self) -> dict[str, frozenset[str]]:
        """Table of `mpdit.catalogue` → the names in it that the run uses."""
        return {
            "flags": frozenset(self.model.flags),
            "parts": frozenset(self.model.parts + self.model.final_parts),
            "datasets": frozenset([self.data.name]),
            "metrics": frozenset(self.evaluate.metrics),
            "solvers": frozenset([self.sample.solver]),
            "objectives": frozenset([self.train.objective]),
        }

    @cached_property
    def id(self) -> str:
        """Twelve hex digits of the SHA-256 of the whole resolved science config.

        Up to version 0.1 it was the first eight of them.
        """
        text = json.dumps(self.science(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    def resolved(self) -> dict[str, Any]:
        """Every field, plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def science(self) -> dict[str, Any]:
        """The run's identity before hashing, the same in every version of this code."""
        tree: dict[str, Any] = {name: getattr(self, name).identity() for name in SECTIONS}
        tree["seed"] = self.seed
        if self.extensions:
            tree["extensions"] = sorted(one.sha256 for one in self.extensions)
        return tree


ID_DIGITS = 12
"""Of 100,000 runs two have one id with a probability of 2e-5."""

SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in RunConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""The parts of a run's config that are mappings."""
FLAGS.reserve((*SECTIONS, "seed", "extensions"), "a section or an option of the config")

OPERATIONAL = {name: set(marks(section, How)) for name, section in SECTIONS.items()}
"""The fields that are not part of a run's identity."""


def read_run(tree: Any) -> RunConfig:
    """Make a run's config from the content of a config.yaml, of this version or an older one.

    Raises:
        ConfigError: as `make_run`.
    """
    return make_run(tree, defaults=0) if isinstance(tree, Mapping) else make_run(tree)


INPUT_ONLY = {"model": ("name", "preset")}
"""Keys that are accepted and resolved into others."""


def known_keys() -> tuple[str, ...]:
    """Every dotted key that a grid may set, sections first."""
    keys: list[str] = ["seed"]
    for section, kind in SECTIONS.items():
        names = (*INPUT_ONLY.get(section, ()), *kind.model_fields)
        keys += [section, *(f"{section}.{name}" for name in names)]
    return (*keys, *(f"model.{name}" for name in FLAGS if name not in PAPERS_FLAGS))


def former_keys() -> frozenset[str]:
    """The dotted keys of renamed and removed fields, which the grids of older studies may set."""
    return frozenset(
        f"{section}.{name}"
        for section, kind in SECTIONS.items()
        for name in (*(mark.name for mark in marks(kind, Formerly).values()), *kind.retired)
    )


DEFAULTS = 2
"""The version of the defaults: increased whenever a field's default no longer means "as before".
Version 0.1 has 1. A study keeps the defaults that it began with."""


def make_run(tree: Mapping[str, Any], defaults: int = DEFAULTS) -> RunConfig:
    """Make the resolved, validated config of a run from a nested mapping.

    Args:
        tree: section → key → value, as in a grid's ``base``.
        defaults: the version of the defaults for keys that the mapping omits.

    Raises:
        ConfigError: naming the first wrong key, the error, and the nearest correct name.
    """
    if defaults < DEFAULTS:
        for name, section in SECTIONS.items():
            if isinstance(part := tree.get(name, {}), Mapping):
                tree = {**tree, name: section.as_before(part, defaults)}
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise explain(error, known_keys()) from None
