"""The model's part of a run's config: size, magnitude-preservation flags, conditioning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from mpdit.catalogue import (
    FLAGS,
    GATES,
    MLPS,
    MODES,
    MODULATIONS,
    NORMS,
    PAPERS_FLAGS,
    PARTS,
    POSITIONS,
    QK_NORMS,
    TIME_EMBEDDINGS,
)
from mpdit.catalogue.parts import in_order
from mpdit.errors import nearest
from mpdit.section import Later, Positive, SameAs, Section, named_in


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
        **dict.fromkeys(PAPERS_FLAGS, True),
        "gate": "one_plus",
        "modulation": "separate",
        "time_embedding": "fourier",
        "mean_free_positions": True,
    },
    # The last state (branch final): rotation everywhere, nothing that shrinks magnitudes.
    "final": {
        **dict.fromkeys(PAPERS_FLAGS, True),
        "cosine_attention": False,
        "conditioning": "rotation+blended_shift+gate",
        "gate": "rotation",
        "modulation": "plain",
        "time_embedding": "mp_fourier",
        "mean_free_table": True,
        "mp_attention_output": True,
        "zero_output": False,
    },
}
"""The three generations of the official code, as values of the named options."""

SPELLED = {
    "norm": SameAs("no_layernorm", {False: "layer", True: "none"}),
    "qk_norm": SameAs("cosine_attention", {False: "none", True: "cosine"}),
}
"""Options with a value that equals one of the paper's flags; None follows the flag."""

OF_TABLE = ("mp_pos_enc", "mean_free_positions", "mean_free_table")
"""Flags of the table of positions only."""


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
            raise ValueError(
                f"unknown conditioning {part!r}.{nearest(part, (*MODES, *PARTS))}"
                f" Known: {', '.join(MODES)}, and parts of {'+'.join(PARTS)}"
            )
    return in_order(set(value))


def _mode(parts: tuple[str, ...]) -> str:
    """The one canonical spelling of a set of parts."""
    return next((name for name, known in MODES.items() if known == parts), "+".join(parts))


class ModelConfig(Section):
    """A Diffusion Transformer: size, magnitude-preservation flags, conditioning.

    ``name`` (``DiT-S/2``) and ``preset`` (``flags``, ``mods``, ``final``) are accepted as input and
    resolved into the fields below, so that two spellings of one model are one identity.
    """

    depth: Positive
    """Number of blocks."""
    width: Positive
    """Channels of a token."""
    heads: Positive
    """Attention heads of a block."""
    patch_size: Positive
    """Side of a token's patch in pixels."""

    cosine_attention: bool = False
    weight_normalization: bool = False
    forced_weight_normalization: bool = False
    mp_residual: bool = False
    mp_silu: bool = False
    no_layernorm: bool = False
    mp_pos_enc: bool = False
    mp_embedding: bool = False

    conditioning: str = "adaln"
    """How time and class act on the blocks: a mode, or parts joined by +."""
    final_conditioning: str = "same"
    """The final layer's own modulation, by parts (it has no gate); ``same`` follows the blocks."""
    modulation: Annotated[str, named_in(MODULATIONS)] = "joint"
    """``joint``: one linear map for all of a block's modulation; ``separate``: one for each part of
    each sublayer, so that each has its own learned gain; ``plain``: separate, without weight
    normalization, so without gains."""
    gate: Annotated[str, named_in(GATES)] = "zero"
    """A sublayer's output is multiplied by ``g`` (AdaLN-Zero) or by ``1 + g``, or rotated by ``g``,
    an angle for each pair of channels; g starts at 0."""
    time_embedding: Annotated[str, named_in(TIME_EMBEDDINGS)] | None = None
    """None follows ``mp_embedding``: a table of 1000 rows when on, else sinusoidal. ``fourier`` is
    map-dit's, of magnitude 0.707; ``mp_fourier`` has EDM2's √2."""
    mean_free_positions: bool = False
    """Subtract each row's own mean from the position table."""
    mp_attention: bool = False
    """Scale each head's output to unit magnitude, because softmax's average shrinks it."""
    mp_attention_output: Annotated[bool, Later(as_before=False)] = False
    """Scale attention's output, after its last map, to unit magnitude for each token."""
    mean_free_table: Annotated[bool, Later(as_before=False)] = False
    """Subtract the overall mean from the position table; ``mean_free_positions``: each row's own
    mean."""
    zero_output: Annotated[bool, Later(as_before=True)] = True
    """The model's output is zero at initialization; false: its last map has no learned gain, and
    starts like any other."""
    residual_t: Annotated[float, Field(gt=0, lt=1), Later(as_before=0.3)] = 0.3
    """The weight t of the residual sums mp_sum(x, output, t), with ``mp_residual``."""
    norm: Annotated[
        Annotated[str, named_in(NORMS)] | None, Later(as_before=SPELLED["norm"], since=0)
    ] = None
    """The norm before attention, MLP and the final layer; None follows ``no_layernorm``."""
    qk_norm: Annotated[
        Annotated[str, named_in(QK_NORMS)] | None, Later(as_before=SPELLED["qk_norm"], since=0)
    ] = None
    """The norm of q and k in each head; None follows ``cosine_attention``."""
    mlp: Annotated[str, named_in(MLPS), Later(as_before="silu")] = "silu"
    """The blocks' feed-forward layer; both have about as many parameters."""
    positions: Annotated[str, named_in(POSITIONS), Later(as_before="sincos")] = "sincos"
    """The position encoding: a table added to the tokens, or q and k rotated by their tokens'
    positions."""
    added_flags: Annotated[tuple[str, ...], Field(strict=False), Later(as_before=[])] = ()
    """Flags beyond the paper's eight that are on: those of extensions, and the package's later
    ones. A grid sets each by its own name, like the paper's flags."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError("expected a mapping of model options")
        data = dict(data)
        preset = data.pop("preset", "flags")
        if not isinstance(preset, str) or preset not in PRESETS:
            hint = nearest(str(preset), PRESETS)
            raise ValueError(f"unknown preset {preset!r}.{hint} Known: {', '.join(PRESETS)}")
        if (name := data.pop("name", None)) is not None:
            size, patch = parse_model_name(name)
            data = {**size._asdict(), "patch_size": patch, **data}
        return _gather_flags({**_of_preset(preset, data), **data})

    @field_validator("conditioning", mode="before")
    @classmethod
    def _canonical_conditioning(cls, value: object) -> str:
        return _mode(_parts(value))

    @classmethod
    def as_before(cls, data: Mapping[str, Any], defaults: int) -> dict[str, Any]:
        """As for every section; keys that a preset sets do not count as omitted."""
        preset = data.get("preset")
        known = isinstance(preset, str) and preset in PRESETS
        options = _of_preset(str(preset), data) if known else {}
        return super().as_before({**options, **data}, defaults)

    @model_validator(mode="after")
    def _spelled_once(self) -> ModelConfig:
        """Check that flags agree with the options that they stand for."""
        for name, spelled in SPELLED.items():
            assert spelled.meaning is not None
            flag, value, given = spelled.field, getattr(self, name), getattr(self, spelled.field)
            on = value == spelled.meaning[True]
            if value is None:
                self.fill(**{name: spelled.meaning[given]})
            elif flag not in self.model_fields_set:
                self.fill(**{flag: on})
            elif given != on:
                raise ValueError(
                    f"{flag}: {str(given).lower()} contradicts {name}: {value}, as {flag} means "
                    f"{name}: {spelled.meaning[True]}. Give one of them"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        for flag in self.flags:
            for other, reason in FLAGS.find(flag).needs.items():
                if other not in self.flags:
                    raise ValueError(f"{flag} needs {other}: {reason}")
        if "shared_modulation" in self.added_flags and not self.parts:
            raise ValueError("shared_modulation needs a modulation, and conditioning is none")
        if "shared_modulation" in self.added_flags:
            for part in self.parts:
                if PARTS.find(part).unit(self.width):
                    raise ValueError(
                        f"shared_modulation adds a learned vector of each block to the shared "
                        f"values, but those of {part} have unit magnitude by their map alone. Set "
                        f"conditioning to parts without {part}, such as rotation+gate"
                    )
        if self.positions == "rope" and (unused := [n for n in OF_TABLE if getattr(self, n)]):
            raise ValueError(
                f"{unused[0]} changes the table of positions, but positions: rope has no table. "
                f"Set {unused[0]}: false"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.positions == "rope" and self.width // self.heads % 4:
            raise ValueError(
                f"width {self.width} / heads {self.heads} is not a multiple of 4 (2-D RoPE)"
            )
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4 (2-D sin-cos positions)")
        final = self.final_conditioning
        parts = self.parts if final == "same" else _parts(final)
        self.fill(final_conditioning=_mode(tuple(part for part in parts if part != "gate")))
        if self.time_embedding is None:
            self.fill(time_embedding="table" if self.mp_embedding else "sinusoidal")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the blocks' conditioning, in the order of application."""
        return _split(self.conditioning)

    @property
    def final_parts(self) -> tuple[str, ...]:
        """The same for the final layer, which has no gate."""
        return _split(self.final_conditioning)

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that are on."""
        return (*(flag for flag in PAPERS_FLAGS if getattr(self, flag)), *self.added_flags)

    @property
    def has_gains(self) -> bool:
        """Whether the model has learned gains."""
        modulated = self.modulation != "plain" and bool(self.parts or self.final_parts)
        return self.weight_normalization and (self.zero_output or modulated)

    @property
    def float32_sums(self) -> bool:
        """Whether the weights of sums are rounded to float32 even in a float64 model, as in
        map-dit's branch of the blended shift."""
        return "blended_shift" in self.parts

    @property
    def name(self) -> str:
        """``DiT-S/2``, or ``DiT-4x64x4/2`` (depth × width × heads / patch) for a free size."""
        size = Size(self.depth, self.width, self.heads)
        known = next((name for name, other in SIZES.items() if other == size), None)
        return f"DiT-{known or 'x'.join(map(str, size))}/{self.patch_size}"


FLAGS.reserve(
    {*ModelConfig.model_fields, "preset", "name"} - {*PAPERS_FLAGS}, "an option of the model"
)


def _of_preset(preset: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's options, without options that ``data`` determines."""
    decided = {spelled.field for name, spelled in SPELLED.items() if data.get(name) is not None}
    if data.get("positions") == "rope":
        decided |= set(OF_TABLE)
    return {name: value for name, value in PRESETS[preset].items() if name not in decided}


def _split(mode: str) -> tuple[str, ...]:
    """The parts of a mode in its canonical spelling."""
    return MODES[mode] if mode in MODES else tuple(mode.split("+"))


def _gather_flags(data: dict[str, Any]) -> dict[str, Any]:
    """Move flags that are not fields of their own into ``added_flags``."""
    given = data.get("added_flags", ())
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"added_flags should be a list of flags, not {given!r}")
    on = set(given)
    for name in [name for name in data if name in FLAGS and name not in PAPERS_FLAGS]:
        if not isinstance(value := data.pop(name), bool):
            raise ValueError(f"{name} should be a valid boolean, not {value!r}")
        on = on | {name} if value else on - {name}
    return {**data, "added_flags": [name for name in FLAGS if name in on] or sorted(on)}


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
