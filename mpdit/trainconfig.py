"""The training recipe's part of a run's config."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mpdit.catalogue import OBJECTIVES, OPTIMIZERS
from mpdit.section import ADDED, HOW, Formerly, Later, Place, Positive, SameAs, Section, named_in
from mpdit.text import expanded, printable
from mpdit.trackers import ToolName

Rate = Annotated[float, Field(gt=0, le=10)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Std = Annotated[
    float, Field(gt=0, lt=0.28)
]  # the EMA profile's relative width: γ > 0 needs σ < 12^-½


class Start(Section):
    """A file of weights to begin with. Its content is part of the run's identity, its place is not.

    A config may name just the file, an EMA snapshot (``….safetensors``) or a checkpoint with the
    raw weights (``….pt``); or a run's folder, which is its newest snapshot of the smallest width.
    """

    path: Annotated[Place, HOW]
    sha256: str

    @model_validator(mode="before")
    @classmethod
    def _of_file(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        file = expanded(data).absolute()
        try:
            if file.is_dir():
                file = _newest_snapshot(file)
            found = file.stat()
            return {"path": str(file), "sha256": _sha256(file, found.st_mtime_ns, found.st_size)}
        except OSError as error:
            raise ValueError(f"cannot read {printable(str(file))}: {error.strerror}") from None


def _newest_snapshot(run: Path) -> Path:
    files = sorted(run.glob("ema/std*_step*[0-9].safetensors"))
    if not files:
        raise ValueError(f"{run} has no EMA snapshots: train it first, or name a file of weights")
    return max(files, key=lambda file: file.stem.rpartition("_step")[2])  # the first of the newest


@cache
def _sha256(file: Path, _mtime: int, _size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class TrainConfig(Section):
    """The training recipe; defaults are the official code's (flags generation)."""

    steps: Positive
    """Training steps."""
    batch_size: Positive = 256
    """Images of a step, over all processes."""
    learning_rate: Rate = 1e-4
    """Learning rate of parameters that are not weight-normalized."""
    mp_learning_rate: Rate | None = None
    """Learning rate of weight-normalized parameters; None: as ``learning_rate``."""
    gain_learning_rate: Annotated[Rate | None, Later(as_before=SameAs("learning_rate"))] = None
    """Learning rate of learned gains; None: as ``mp_learning_rate``. For a model without gains it
    is resolved to ``learning_rate``."""
    matrix_learning_rate: Annotated[Rate | None, Later(as_before=None)] = None
    """Learning rate of linear maps; None: by whether they are weight-normalized."""
    embedding_learning_rate: Annotated[Rate | None, Later(as_before=None)] = None
    """Learning rate of tables of labels and timesteps; None: by whether they are
    weight-normalized."""
    optimizer: Annotated[str, named_in(OPTIMIZERS), Later(as_before="adam")] = "adam"
    """``muon`` trains the matrices of the blocks, and Adam the other parameters."""
    weight_decay: Annotated[float, Field(ge=0, le=10), Later(as_before=0.0)] = 0.0
    """Weight decay of linear maps, decoupled (AdamW): a step subtracts rate · weight_decay of the
    weights."""
    adam_betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.99)
    """Adam's β₁ and β₂."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps of linear warm-up; None: steps / 150."""
    constant_steps: Positive | None = None
    """Steps after which the rate falls with √(constant_steps / (step − decay_offset)); None:
    steps / 10."""
    decay_offset: Annotated[Literal[0, 1], Later(as_before=0)] = 1
    """Subtracted from the step in the decay of the rate. 1 is as in the official code and EDM2,
    whose first step is step 0."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of a step's gradient; None: no clipping."""
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Fraction of labels that are replaced by "no label", for guidance."""
    objective: Annotated[str, named_in(OBJECTIVES), Later(as_before="epsilon")] = "epsilon"
    """The prediction target of the model."""
    start: Annotated[Start | None, Later(as_before=None)] = None
    """The weights to begin with: a file, or a run's folder; None: random weights."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of matrix products: ``tf32`` is float32's range with 10 bits of mantissa (NVIDIA
    GPUs only); ``bfloat16`` is autocast, with norms, cos/sin, residual stream and loss in
    float32."""
    ema_stds: Annotated[tuple[Std, ...], Field(strict=False, min_length=1)] = (0.05, 0.10)
    """Relative widths of the power-function EMAs (EDM2, algorithm 3)."""
    snapshot_every: Positive | None = None
    """Steps between EMA snapshots; None: steps / 250."""

    gradient_checkpointing: Annotated[bool, HOW] = False
    """Recompute the blocks' activations instead of keeping them; the bits are the same."""
    micro_batch_size: Annotated[Positive | None, HOW] = None
    """Most images that one device processes at once. A larger shard of the batch is split into
    microbatches, and their gradients are accumulated: the same sums in another order. None: no
    limit."""
    compile: Annotated[bool, HOW] = False
    """`torch.compile` of the blocks: faster after half a minute of compilation; the last bits
    differ."""
    track: Annotated[
        ToolName | None, HOW, Formerly("tensorboard", ((False, None), (True, "tensorboard")))
    ] = None
    """The tracking tool that also gets the rows of metrics.jsonl and evaluation.jsonl; None: no
    tool."""
    checkpoint_minutes: Annotated[float, Field(gt=0), HOW, ADDED] = 10.0
    """Minutes of training between checkpoints. There is also one at the end, and at a signal."""
    checkpoint_every: Annotated[Positive | None, HOW] = None
    """Steps between checkpoints, in place of ``checkpoint_minutes``."""
    log_every: Annotated[Positive, HOW] = 50
    """Steps between rows of metrics.jsonl."""
    probe_every: Annotated[Positive | None, HOW] = None
    """Steps between magnitude probes; None: steps / 20."""

    def identity(self) -> dict[str, Any]:
        """The section's part of a run's identity; ``start`` counts by its content."""
        tree = super().identity()
        return {**tree, "start": self.start.identity()} if self.start else tree

    @field_validator("adam_betas", mode="before")
    @classmethod
    def _two(cls, betas: Any) -> Any:
        if not isinstance(betas, list | tuple) or len(betas) != 2:
            raise ValueError(f"should be two numbers, each in [0, 1), not {betas!r}")
        return betas

    @field_validator("ema_stds")
    @classmethod
    def _distinct(cls, stds: tuple[float, ...]) -> tuple[float, ...]:
        for std in stds:
            if round(std, 3) != std:  # snapshots are named by three
                raise ValueError(f"width {std}: at most three decimals")
            if stds.count(std) > 1:
                raise ValueError(f"width {std} is listed twice")
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
        self.fill(**{key: value for key, value in derived.items() if getattr(self, key) is None})
        if self.gain_learning_rate is None:
            self.fill(gain_learning_rate=self.mp_learning_rate)
        return self
