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
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mpdit.errors import explain, nearest

FLAGS = (
    "cosine_attention",
    "weight_normalization",
    "forced_weight_normalization",
    "mp_residual",
    "mp_silu",
    "no_layernorm",
    "mp_pos_enc",
    "mp_embedding",
)
"""The eight magnitude-preservation switches, under their official names."""

PARTS = ("scale", "shift", "rotation", "gate")
"""What a conditioning mode is made of, in the order of application."""

MODES = {
    "adaln": ("scale", "shift", "gate"),
    "rotation": ("rotation", "gate"),
    "rotation_scale": ("scale", "rotation", "gate"),
    "rotation_only": ("rotation",),
    "none": (),
}
"""The named conditioning modes; any other subset is written by its parts, ``scale+gate``."""


class Size(NamedTuple):
    """Depth (blocks), width (channels of a token), attention heads."""

    depth: int
    width: int
    heads: int


SIZES = {
    "XS": Size(6, 256, 4),
    "S": Size(12, 384, 6),
    "B": Size(12, 768, 12),
    "L": Size(24, 1024, 16),
    "XL": Size(28, 1152, 16),
}

PRESETS: dict[str, dict[str, Any]] = {
    # Table 1: eight switches over AdaLN-Zero (official commit 4e3b269).
    "flags": {},
    # Table 2: all magnitude-preserving, the conditioning taken apart (branch old-mod_opts).
    "mods": {
        **dict.fromkeys(FLAGS, True),
        "gate": "one_plus",
        "modulation": "separate",
        "time_embedding": "fourier",
        "mean_free_positions": True,
    },
}
"""The two generations of the official code, as values of the named options."""


@dataclass(frozen=True)
class Dataset:
    """What a model must know of a data set: latent or pixel channels, side (pixels), classes."""

    channels: int
    size: int
    classes: int
    extractor: str


DATASETS = {
    "digits": Dataset(channels=1, size=8, classes=10, extractor="digits"),
    "fashion-mnist": Dataset(channels=1, size=28, classes=10, extractor="fashion-mnist"),
    "imagenet128-latents": Dataset(channels=4, size=16, classes=1000, extractor="inception"),
}
FREE_DATASETS = ("latents", "folder")
"""Of any shape, which the config says: a latent store, a folder of images."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _parts(value: object) -> tuple[str, ...]:
    """The parts named by a conditioning mode, in order of application.

    Raises:
        ValueError: for an unknown mode or part.
    """
    if isinstance(value, str):
        if value in MODES:
            return MODES[value]
        value = value.split("+")
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError(f"a conditioning mode is one of {', '.join(MODES)}, or parts: scale+gate")
    for part in value:
        if part not in PARTS:
            known = (*MODES, *PARTS)
            raise ValueError(
                f"unknown conditioning {part!r}.{nearest(part, known)}"
                f" Known: {', '.join(MODES)}, and parts of {'+'.join(PARTS)}"
            )
    return tuple(part for part in PARTS if part in value)


def _mode(parts: tuple[str, ...]) -> str:
    """The one canonical spelling of a set of parts."""
    return next((name for name, known in MODES.items() if known == parts), "+".join(parts))


Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=10)]
Std = Annotated[
    float, Field(gt=0, lt=0.28)
]  # the EMA profile's relative width: γ > 0 needs σ < 12^-½


class ModelConfig(_Strict):
    """A Diffusion Transformer: size, magnitude-preservation flags, conditioning.

    ``name`` (``DiT-S/2``) and ``preset`` (``flags``, ``mods``) are accepted as input and resolved
    into the fields below, so that two spellings of one model are one identity.
    """

    depth: Positive
    width: Positive
    heads: Positive
    patch_size: Positive

    cosine_attention: bool = False
    weight_normalization: bool = False
    forced_weight_normalization: bool = False
    mp_residual: bool = False
    mp_silu: bool = False
    no_layernorm: bool = False
    mp_pos_enc: bool = False
    mp_embedding: bool = False

    conditioning: str = "adaln"
    final_conditioning: str = "same"
    """The final layer's own modulation, by parts (it has no gate); ``same`` follows the blocks."""
    modulation: Literal["joint", "separate"] = "joint"
    """One linear map for all of a block's modulation, or one for each part of each sublayer."""
    gate: Literal["zero", "one_plus"] = "zero"
    """A sublayer's output is multiplied by ``g`` (AdaLN-Zero) or by ``1 + g``; g starts at 0."""
    time_embedding: Literal["sinusoidal", "table", "fourier", "mp_fourier"] | None = None
    """None follows ``mp_embedding``: a table of 1000 rows when on, else sinusoidal. ``fourier`` is
    map-dit's, of magnitude 0.707; ``mp_fourier`` has EDM2's √2."""
    mean_free_positions: bool = False
    mp_attention: bool = False
    """Each head's output at unit magnitude: the shrinking by softmax's average is divided out."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError("expected a mapping of model options")
        data = dict(data)
        preset = data.pop("preset", "flags")
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}. Known: {', '.join(PRESETS)}")
        if (name := data.pop("name", None)) is not None:
            size, patch = parse_model_name(name)
            data = {**size._asdict(), "patch_size": patch, **data}
        return {**PRESETS[preset], **data}

    @field_validator("conditioning", mode="before")
    @classmethod
    def _canonical_conditioning(cls, value: object) -> str:
        return _mode(_parts(value))

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.forced_weight_normalization and not self.weight_normalization:
            raise ValueError(
                "forced_weight_normalization needs weight_normalization: "
                "the forced step keeps stored weights where the normalized ones are used"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4 (2-D sin-cos positions)")
        final = self.final_conditioning
        parts = self.parts if final == "same" else _parts(final)
        _set(self, "final_conditioning", _mode(tuple(part for part in parts if part != "gate")))
        if self.time_embedding is None:
            _set(self, "time_embedding", "table" if self.mp_embedding else "sinusoidal")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """What the blocks' conditioning is made of, in the order of application."""
        return _parts(self.conditioning)

    @property
    def final_parts(self) -> tuple[str, ...]:
        """The same for the final layer, which has no gate."""
        return _parts(self.final_conditioning)

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that are on."""
        return tuple(flag for flag in FLAGS if getattr(self, flag))

    @property
    def name(self) -> str:
        """``DiT-S/2``, or ``DiT-4x64x4/2`` (depth × width × heads / patch) for a free size."""
        size = Size(self.depth, self.width, self.heads)
        known = next((name for name, other in SIZES.items() if other == size), None)
        return f"DiT-{known or 'x'.join(map(str, size))}/{self.patch_size}"


def parse_model_name(name: object) -> tuple[Size, int]:
    """``DiT-S/2`` → (its size, patch 2).

    Raises:
        ValueError: for anything that is not ``DiT-{XS,S,B,L,XL}/{patch}``.
    """
    size, _, patch = str(name).removeprefix("DiT-").partition("/")
    if size not in SIZES or not patch.isdecimal() or not str(name).startswith("DiT-"):
        known = [f"DiT-{size}/{patch}" for size in SIZES for patch in (2, 4, 8)]
        hint = nearest(str(name), known)
        raise ValueError(f"unknown model {name!r}.{hint} Known: DiT-{{{','.join(SIZES)}}}/PATCH")
    return SIZES[size], int(patch)


class DataConfig(_Strict):
    """Which data. ``path`` says where it lies on this machine and is no part of the identity.

    ``latents`` and ``folder`` (images, a sub-folder per class) are of any shape, which
    ``channels``, ``size`` and ``classes`` say; the other data sets have their own.
    """

    name: Literal[(*DATASETS, *FREE_DATASETS)]  # type: ignore[valid-type]
    path: str | None = None
    channels: Positive | None = None
    size: Positive | None = None
    classes: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _shape_where_it_is_free(self) -> DataConfig:
        given = [value is not None for value in (self.channels, self.size, self.classes)]
        free = self.name in FREE_DATASETS
        if free and not all(given):
            raise ValueError(f"{self.name} needs channels, size and classes")
        if not free and any(given):
            raise ValueError(f"{self.name} has its own channels, size and classes")
        return self

    @property
    def spec(self) -> Dataset:
        if self.channels and self.size and self.classes:
            return Dataset(self.channels, self.size, self.classes, extractor="inception")
        return DATASETS[self.name]


class TrainConfig(_Strict):
    """The training recipe; defaults are the official code's (flags generation)."""

    steps: Positive
    batch_size: Positive = 256
    learning_rate: Rate = 1e-4
    mp_learning_rate: Rate | None = None
    """For weight-normalized parameters; None: as ``learning_rate``."""
    adam_betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.99)
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Linear warm-up; None: steps / 150."""
    constant_steps: Positive | None = None
    """The rate falls as 1/sqrt(step) from here; None: steps / 10."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of matrix products: ``tf32`` is float32's range with 10 bits of mantissa (NVIDIA GPUs only);
    ``bfloat16`` is autocast, with norms, cos/sin, residual stream and loss in float32."""
    ema_stds: Annotated[tuple[Std, ...], Field(strict=False, min_length=1)] = (0.05, 0.10)
    """Relative widths of the power-function EMAs (EDM2, algorithm 3)."""
    snapshot_every: Positive | None = None
    """Steps between EMA snapshots; None: steps / 250."""

    gradient_checkpointing: bool = False
    """Blocks are computed twice, so that their intermediates need not be kept: the same bits."""
    micro_batch_size: Positive | None = None
    """Most images that one device takes at once: larger shares of the batch are taken in turns and
    their gradients accumulated. The same sums in another order. None: no limit."""
    compile: bool = False
    """`torch.compile` of the blocks: faster after half a minute of waiting, other last bits."""
    tensorboard: bool = False
    """The rows of metrics.jsonl also as TensorBoard events, under ``tensorboard/``."""
    checkpoint_every: Positive = 1000
    log_every: Positive = 50
    probe_every: Positive | None = None
    """Steps between magnitude probes; None: steps / 20."""

    @field_validator("ema_stds")
    @classmethod
    def _distinct(cls, stds: tuple[float, ...]) -> tuple[float, ...]:
        for std in stds:
            if round(std, 3) != std:  # snapshots are named by three
                raise ValueError(f"width {std}: at most three decimals")
        if len(set(stds)) < len(stds):
            raise ValueError(f"{list(stds)}: a width is there twice")
        return stds

    @model_validator(mode="after")
    def _derive(self) -> TrainConfig:
        derived = {
            "mp_learning_rate": self.learning_rate,
            "warmup_steps": self.steps // 150,
            "constant_steps": max(1, self.steps // 10),
            "snapshot_every": max(1, self.steps // 250),
            "probe_every": max(1, self.steps // 20),
        }
        for key, value in derived.items():
            if getattr(self, key) is None:
                _set(self, key, value)
        return self


class SampleConfig(_Strict):
    """How samples are drawn from the EMA weights, with classifier-free guidance."""

    count: Positive = 10_000
    solver: Literal["ddpm", "ddim", "dpm++"] = "ddpm"
    """Ancestral with learned variance; deterministic first order; DPM-Solver++(2M)."""
    steps: Annotated[int, Field(gt=0, le=1000)] = 250
    guidance: Annotated[float, Field(ge=0)] = 1.5
    """1 is unguided (and costs half)."""
    ema_std: Std = 0.05
    """One of train.ema_stds as it was stored, any other by reconstruction."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    to_uint8: Literal["round", "truncate"] = "round"
    """``truncate`` is what the official code does, for comparison."""
    batch_size: Positive = 250
    compile: bool = False
    """`torch.compile` of the blocks."""


METRICS = ("fd", "kid", "precision_recall", "inception_score")


class EvaluateConfig(_Strict):
    """Which features samples and real images are compared in, how, and how often."""

    extractor: Literal["digits", "fashion-mnist", "inception"] | None = None
    """None: the data set's own."""
    metrics: Annotated[tuple[Literal[METRICS], ...], Field(strict=False, min_length=1)] = ("fd",)  # type: ignore[valid-type]
    """Fréchet distance, kernel distance, precision and recall, Inception score; each once, in this
    order, however they were given."""
    repeats: Positive = 1
    """Sample sets, each from a sampling seed of its own; their spread is sampling noise."""
    inception: str | None = None
    """Where Inception's weights lie on this machine; None: $MPDIT_INCEPTION, else torch's cache."""

    @field_validator("metrics")
    @classmethod
    def _in_order(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(metric for metric in METRICS if metric in metrics)


class RunConfig(_Strict):
    """One run, whole: what is trained on what, how it is sampled and judged, from which seed."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

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
            _set(self, "evaluate", EvaluateConfig.model_validate(told))
        return self

    @cached_property
    def id(self) -> str:
        """Eight hex digits of the SHA-256 of the whole resolved science config."""
        text = json.dumps(self.science(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def resolved(self) -> dict[str, Any]:
        """Every field, plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def science(self) -> dict[str, Any]:
        """``resolved`` without what says only where and how the run is executed and logged."""
        return self.model_dump(mode="json", exclude=OPERATIONAL)


OPERATIONAL: Any = {
    "data": {"path"},
    "train": {
        "checkpoint_every",
        "compile",
        "gradient_checkpointing",
        "log_every",
        "micro_batch_size",
        "probe_every",
        "tensorboard",
    },
    "sample": {"batch_size", "compile"},
    "evaluate": {"inception"},
}
"""The fields that are no part of a run's identity."""

INPUT_ONLY = {"model": ("name", "preset")}
"""Keys that are accepted and resolved into others."""


def _set(model: BaseModel, key: str, value: object) -> None:
    """Fill in a derived field of a frozen model during its own validation."""
    object.__setattr__(model, key, value)


def known_keys() -> tuple[str, ...]:
    """Every dotted key that a grid may set, sections first."""
    keys: list[str] = []
    for section, field in RunConfig.model_fields.items():
        keys.append(section)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names = (*INPUT_ONLY.get(section, ()), *field.annotation.model_fields)
            keys += [f"{section}.{name}" for name in names]
    return tuple(keys)


def make_run(tree: Mapping[str, Any]) -> RunConfig:
    """A nested mapping → the resolved, validated run.

    Raises:
        ConfigError: naming the first key that is wrong, what is wrong with it, and the nearest
            right thing.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise explain(error, known_keys()) from None
