"""Training from other weights: ``train.start``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpdit.ema.power import SnapshotFile
from mpdit.errors import ConfigError, why_unloadable
from mpdit.model import DiT
from mpdit.trainconfig import Start

KEY = "train.start"


def load_start(model: DiT, start: Start) -> None:
    """Give the model the weights of a file, in place.

    Raises:
        ConfigError: when the file is missing, unreadable, or changed since the run was made; when
            its tensors do not fit the model.
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


def _weights(file: Path) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            with SnapshotFile(file) as snapshot:
                return snapshot.read_all()
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # any error of a damaged pickle or zip
        raise _of_something_else(file, why_unloadable(error)) from None
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _of_something_else(file, "it holds no tensors under the key model")
    return state


def _of_something_else(file: Path, why: str) -> ConfigError:
    return ConfigError(f"{file} is neither an EMA snapshot nor a checkpoint of a run ({why})", KEY)


def _said(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"
