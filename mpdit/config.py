"""The vocabulary: what one run *is*, as strict, typed, immutable values, and its identity.

A run is a point of the ablation grid: model, data, train, sample, evaluate, seed. Every value that
is derived from another (warm-up from the number of steps, the final layer's modulation from the
blocks') is resolved when the config is made, so that the written config says all there is to say
and its hash means the same science tomorrow. No torch is imported here.
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
from mpdit.section import HOW, Formerly, How, Later, Place, Positive, Section, marks, named_in
from mpdit.trainconfig import Std, TrainConfig

Level = Annotated[float, Field(ge=0)]


class DataConfig(Section):
    """Which data. ``path`` says where it lies on this machine and is not part of the identity.

    ``latents`` and ``folder`` (images, a sub-folder per class) are of any shape, which
    ``channels``, ``size`` and ``classes`` say; the other data sets have their own.
    """

    name: Annotated[str, named_in(DATASETS)]
    path: Annotated[Place | None, HOW] = None
    channels: Positive | None = None
    size: Positive | None = None
    classes: Positive | None = None
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
    solver: Annotated[str, named_in(SOLVERS)] = "ddpm"
    steps: Annotated[int, Field(gt=0, le=1000)] = 250
    guidance: Annotated[float, Field(ge=0)] = 1.5
    """1 is unguided (and costs half)."""
    guidance_interval: Annotated[
        tuple[Level, Level] | None, Field(strict=False), Later(as_before=None)
    ] = None
    """Noise levels σ (the noise's standard deviation over the signal's factor) between which
    guidance is applied: lower < σ ≤ upper. None: at all. Without effect for a guidance of 1."""
    labels: Annotated[Literal["data", "even", "uniform"], Later(as_before="even")] = "data"
    """``data``: in the train split's proportions; ``even``: each in turn, as version 0.1 did;
    ``uniform``: each sample's drawn at random, all as likely, as for the official code's FID."""
    respacing: Annotated[Respacing, Later(as_before="nearest")] = "dit"
    """How the places of evenly spaced timesteps are rounded. ``nearest`` was version 0.1's."""
    ema_std: Std = 0.05
    """One of train.ema_stds as it was stored, any other by reconstruction."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    to_uint8: Literal["round", "truncate"] = "round"
    """``truncate`` is what the official code does, for comparison."""
    batch_size: Annotated[Positive, HOW] = 250
    compile: Annotated[bool, HOW] = False
    """`torch.compile` of the blocks."""
    _used_respacing: Respacing = PrivateAttr()
    _passes: int = PrivateAttr()

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
    """Which features samples and real images are compared in, how, and how often."""

    extractor: Annotated[str, named_in(EXTRACTORS)] | None = None
    """None: the data set's own."""
    metrics: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("fd",)
    """Each once, in the order of their table, however they were given."""
    repeats: Positive = 1
    """Sample sets, each from a sampling seed of its own; their spread is sampling noise."""
    inception: Annotated[Place | None, HOW] = None
    """Where Inception's weights lie on this machine; None: $MPDIT_INCEPTION, else torch's cache."""
    dinov2: Annotated[Place | None, HOW] = None
    """Where DINOv2's weights lie on this machine; None: $MPDIT_DINOV2, else torch's cache."""

    @field_validator("metrics")
    @classmethod
    def _in_order(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        wanted = {METRICS.find(metric).name for metric in metrics}
        return tuple(metric for metric in METRICS if metric in wanted)


class RunConfig(Section):
    """One run, whole: what is trained on what, how it is sampled and judged, from which seed."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    extensions: Annotated[tuple[Extension, ...], Field(strict=False), Later(as_before=[])] = ()
    """Those of the user's files that this run uses; of their SHA-256 is its identity."""

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
        """Hold the solver and the time embedding against the objective's times."""
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
        """What the run is, in every version of this code: its identity, before it is hashed."""
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
    """A config.yaml's content → the run that it is, whichever version has resolved it.

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
"""The version of the defaults: one more whenever a field's default becomes another than "as
before". 1 is version 0.1's. A study keeps the defaults that it began with."""


def make_run(tree: Mapping[str, Any], defaults: int = DEFAULTS) -> RunConfig:
    """A nested mapping → the resolved, validated run.

    Args:
        defaults: the version of the defaults of what the mapping does not say.

    Raises:
        ConfigError: naming the first key that is wrong, what is wrong with it, and the nearest
            right thing.
    """
    if defaults < DEFAULTS:
        for name, section in SECTIONS.items():
            if isinstance(part := tree.get(name, {}), Mapping):
                tree = {**tree, name: section.as_before(part, defaults)}
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise explain(error, known_keys()) from None
