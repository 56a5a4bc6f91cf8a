"""Features kept beside what they were computed from, so that each image is looked at once."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mpdit.config import ConfigError
from mpdit.extractors import Extractor, Features

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
Key = Mapping[str, str | int | None]


def of_samples(file: Path, extractor: Extractor, on_batch: Callable[[int], None]) -> Features:
    """The features of a sample set, from the file beside it when they are there.

    That is ``samples/<name>.<extractor>-<weights>.safetensors``: float32, of exactly these images
    (by the checksum that the .npz itself keeps of them) and these weights.

    Raises:
        ConfigError: when the sample set cannot be read.
    """
    kept = file.with_name(f"{file.stem}.{extractor.name}-{extractor.weights}.safetensors")
    try:
        with zipfile.ZipFile(file) as archive:
            checksum = archive.getinfo("arr_0.npy").CRC

        def extract() -> Features:
            with np.load(file) as arrays:
                return extractor.features(arrays["arr_0"], on_batch)

        return recall_features(kept, {**identity(extractor), "crc32": checksum}, extract)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ConfigError(f"{file} is damaged: {error}. Delete it to draw it again") from None


def identity(extractor: Extractor) -> dict[str, str | int | None]:
    """Of what made the features."""
    return {
        "extractor": extractor.name,
        "weights": extractor.weights,
        "preprocessing": extractor.preprocessing,
    }


def recall_features(file: Path, key: Key, extract: Callable[[], Features]) -> Features:
    """:func:`recall` for features."""
    return Features(**recall(file, key, lambda: extract()._asdict()))


def recall(file: Path, key: Key, make: Callable[[], Arrays]) -> dict[str, np.ndarray]:
    """The arrays that ``file`` holds under ``key``; made and kept when it does not, or is damaged.

    Several processes may do this at once: each writes a whole file aside, and the last one stays.
    """
    found = _read(file, key)
    if found is None:
        found = {name: np.ascontiguousarray(array) for name, array in make().items()}
        metadata = {"key": _text(key), "sha256": _digest(found)}
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as handle:
            temporary = Path(handle.name)
            try:
                handle.write(save(found, metadata))
            except OSError:
                temporary.unlink()
                raise
        temporary.chmod(0o644)  # a temporary file is its owner's alone; a cache may be shared
        temporary.replace(file)
    return found


def _read(file: Path, key: Key) -> dict[str, np.ndarray] | None:
    try:
        with safe_open(file, "numpy") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("key") != _text(key):
                return None
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
    return arrays if _digest(arrays) == metadata.get("sha256") else None


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _text(key: Key) -> str:
    return json.dumps(key, sort_keys=True)
