"""The hash of a run's training data, from as much as training can read when it starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mpdit.catalogue import DATASETS
from mpdit.config import DataConfig
from mpdit.data import datasets
from mpdit.data.images import ImageFolder
from mpdit.data.latents import MANIFEST, checksum
from mpdit.disk.files import write_atomic

AT_ONCE = 256
"""Files between two calls of ``on_files``."""


def content_hash(data: DataConfig, on_files: Callable[[], object] = lambda: None) -> str:
    """Sixteen hex digits of the train split's content.

    For data in memory it is `Images.hash`. For a store it is the hash of the manifest, which holds
    every file's checksum. For a folder it is a hash of the images' names and bytes, each read once
    and remembered.

    Args:
        on_files: called now and then while files are read; it may raise.

    Raises:
        ConfigError: when the data are missing or damaged.
        OSError: when a file cannot be read.
    """
    kind = DATASETS.find(data.name).kind
    if kind == "latents":
        datasets.latent_store(data)
        return checksum(datasets.place(data) / MANIFEST)[:16]
    if kind == "folder":
        return _of_folder(datasets.image_folder(data).split("train"), on_files)
    return datasets.load(data, "train").hash


def remember(memory: Path | None, found: str) -> None:
    """Write a hash to its file, where there is one that can be written."""
    if memory is not None:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(memory, found)


def recall(memory: Path | None) -> str | None:
    """The remembered hash; None when there is none."""
    found = ""
    if memory is not None:
        with suppress(OSError, UnicodeDecodeError):
            found = memory.read_text()
    return found if len(found) == 16 else None


def _of_folder(folder: ImageFolder, on_files: Callable[[], object]) -> str:
    # stamps before the content: an image that changes meanwhile must not keep the remembered hash
    memory = folder.cache_file("folder", "bytes")
    if (known := recall(memory)) is not None:
        return known
    digest = hashlib.sha256()
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as readers:
        for start in range(0, len(folder.names), AT_ONCE):
            names = folder.names[start : start + AT_ONCE]
            for name, found in zip(
                names, readers.map(checksum, [folder.root / name for name in names]), strict=True
            ):
                digest.update(f"{name}\0{found}\n".encode())
            on_files()
    digest.update(folder.labels.tobytes())
    found = digest.hexdigest()[:16]
    remember(memory, found)
    return found
