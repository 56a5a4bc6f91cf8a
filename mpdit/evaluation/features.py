"""Features stored beside their images, so that they are extracted once from each image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mpdit.disk import npz
from mpdit.disk.files import write_atomic
from mpdit.evaluation.extractors.extractor import Extractor, Features
from mpdit.evaluation.realimages import Batch

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
Watch = Callable[[Iterable[Batch], int], Iterator[Batch]]
"""Passes on the batches of this many images, and may stop between two."""
Key = Mapping[str, str | int | None]


def of_samples(file: Path, extractor: Extractor, watch: Watch) -> Features:
    """The features of a sample set, from the file beside it when they are there.

    The file is ``samples/<name>.<extractor>-<weights>.safetensors``: float32, of exactly these
    images (by the checksum and the mark in the .npz) and these weights.

    Raises:
        DamagedError: when the sample set cannot be read.
    """
    kept = file.with_name(f"{file.stem}.{extractor.name}-{extractor.weights}.safetensors")
    held = npz.contents(file)
    if not held.usable:
        raise npz.DamagedError(f"{file} is damaged: it holds no images")
    whose = {name: held.mark[name] for name in ("run", "data") if name in held.mark}

    def extract() -> Arrays:
        batches = watch(npz.images(file, extractor.batch_size), held.shape[0])
        return Features.join(extractor.look(batches))._asdict()

    key = {**identity(extractor), **whose, "crc32": held.checksum}
    return Features(**recall(kept, key, extract))


def identity(extractor: Extractor) -> dict[str, str | int | None]:
    """The identity of the extractor that made the features."""
    return {
        "extractor": extractor.name,
        "weights": extractor.weights,
        "preprocessing": extractor.preprocessing,
    }


def recall(file: Path, key: Key, make: Callable[[], Arrays]) -> dict[str, np.ndarray]:
    """The arrays in ``file`` under ``key``; computed and stored if they are missing or damaged.

    Raises:
        OSError: when they cannot be stored.
    """
    found = read(file, key)
    if found is None:
        found = dict(make())
        keep(file, key, found)
    return found


def keep(file: Path, key: Key, arrays: Arrays) -> None:
    """Write arrays for :func:`read`.

    Several processes may do this at once: each writes a whole file aside, and the last one stays.

    Raises:
        OSError: when the file cannot be written.
        LeaseLostError: when it is in a run that this process has lost.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"key": _text(key), "sha256": _digest(whole)}
    write_atomic(file, save(whole, metadata))


def read(file: Path, key: Key) -> dict[str, np.ndarray] | None:
    """The arrays in ``file`` under ``key``; None when they are missing or damaged."""
    try:
        with safe_open(file, "numpy") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("key") != _text(key):
                return None
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return arrays if _digest(arrays) == metadata.get("sha256") else None


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _text(key: Key) -> str:
    return json.dumps(key, sort_keys=True)
