"""Training from other weights: ``train.start``."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor

from mpdit.disk.npz import DamagedError
from mpdit.ema.power import SnapshotFile
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.trainconfig import Start

KEY = "train.start"


def load_start(model: DiT, start: Start) -> None:
    """Give the model the weights of a file, in place.

    Raises:
        ConfigError: when the file is missing, unreadable, or not the one that the run was made
            with; when its tensors are not the model's.
    """
    file = Path(start.path)
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}. Restore it", KEY) from None
    if digest != start.sha256:
        raise ConfigError(
            f"{file} changed since the run was made (SHA-256 {start.sha256[:12]}…). Restore it, or "
            "submit the grid again, which makes another run",
            KEY,
        )
    state, own = _weights(file), model.state_dict()
    for name in {**own, **state}:
        there, here = (tuple(of[name].shape) if name in of else None for of in (state, own))
        if there != here:
            raise ConfigError(
                f"{file} holds the weights of another model: {name} is {_said(there)} there and "
                f"{_said(here)} in this one",
                KEY,
            )
    model.load_state_dict(state)


def _weights(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            with SnapshotFile(file) as snapshot:
                return snapshot.read_all()
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)["model"]
        return state
    except (DamagedError, pickle.UnpicklingError, RuntimeError, KeyError, EOFError) as error:
        kind = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ConfigError(
            f"{file} is neither an EMA snapshot nor a checkpoint of a run ({kind})", KEY
        ) from None


def _said(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"
