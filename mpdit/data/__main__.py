"""Check images, make latent stores and reference files: ``mpdit data COMMAND``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpdit.commandline.door import door
from mpdit.data.foldercheck import check_images, describe, read_all
from mpdit.data.images import ImageFolder
from mpdit.data.latents import LatentStore, read_manifest, verify
from mpdit.errors import EXIT_DONE, EXIT_SIGINT, EXIT_USAGE, ConfigError, explain_os_error
from mpdit.progress import Progress
from mpdit.text import count

MOST_LINES = 50
"""The most problems of a folder that are listed."""

STOPPED = "stopped; nothing was written"


def encode(source: str, store: Path, vae: str, size: int, batch_size: int) -> int:
    """``mpdit data encode``: make a latent store, or resume making it."""
    resumes = "stopped; the same command resumes from the last whole shard"
    return _status(lambda: _encode(source, store, vae, size, batch_size), resumes)


def check(folder: Path, size: int | None) -> int:
    """``mpdit data check``: read every image of a folder, and print what is wrong."""
    return _status(lambda: _check(folder, size))


def verify_store(store: Path) -> int:
    """``mpdit data verify``: compare a store's files with their checksums."""
    return _status(lambda: _verify(store))


def reference(
    out: Path, data: str, store: Path | None, size: int | None, extractor: str | None
) -> int:
    """``mpdit data reference``: make a file of real images."""
    return _status(lambda: _reference(out, data, store, size, extractor))


def _encode(source: str, store: Path, vae: str, size: int, batch_size: int) -> str:
    from mpdit.encoding.build import build_store
    from mpdit.encoding.encoders import FolderPictures, VaeEncoder, open_pictures
    from mpdit.encoding.officiallatents import OFFICIAL, OfficialLatents
    from mpdit.encoding.shards import Encoder
    from mpdit.runtime.devices import prepare

    rank, processes, local = (
        int(os.environ.get(key, default))
        for key, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    encoder: Encoder
    if (Path(source) / OFFICIAL[0]).exists():
        encoder = OfficialLatents(Path(source), vae)
    else:
        device = prepare("float32", local)
        pictures = open_pictures(source)
        encoder = VaeEncoder(pictures, vae, size, batch_size, device)
        if isinstance(pictures, FolderPictures):
            check_images(pictures.folder, size)
    manifest = build_store(encoder, store, rank, processes)
    return f"{store}: {_describe(store)}" if manifest else ""


def _check(folder: Path, size: int | None) -> str:
    images, problems = ImageFolder.survey(folder)
    with Progress("check", len(images.names)) as progress:
        report = read_all(images, size, progress.advance)
    print(describe(images, report))
    if problems := problems + report.problems:
        listed = problems[:MOST_LINES]
        if len(problems) > MOST_LINES:
            listed.append(f"and {len(problems) - MOST_LINES:,} more")
        found = count(len(problems), "problem")
        raise ConfigError("\n  ".join([f"{found} in {folder}:", *listed]))
    return f"\n{folder}: every image can be read"


def _verify(store: Path) -> str:
    images = read_manifest(store).images
    with Progress("verify", images) as progress:
        verify(store, progress.advance)
    return f"{store} is whole: {_describe(store)}"


def _reference(
    out: Path, data: str, store: Path | None, size: int | None, extractor: str | None
) -> str:
    from mpdit.evaluation.referencefile import Request, make_reference

    request = Request(data, size, store, extractor)
    count, height, width, channels = make_reference(out, request)
    more = f", mu and sigma of {extractor}" if extractor else ""
    return f"{out}: {count:,} images of {height}×{width}×{channels}{more}"


def _describe(path: Path) -> str:
    store = LatentStore(path)
    manifest, unused = store.manifest, store.manifest.classes - len(np.unique(store.labels))
    without = f" ({unused:,} without images)" if unused else ""
    shape = f"{manifest.channels}×{manifest.size}×{manifest.size}"
    flips = "both orientations" if manifest.flips == 2 else "one orientation"
    return (
        f"{manifest.images:,} images of {manifest.classes:,} classes{without}, latents {shape}, "
        f"{flips}, {manifest.bytes / 1e6:,.1f} MB"
    )


def _status(work: Callable[[], str], stopped: str = STOPPED) -> int:
    """Do the work and print what it returns. An error is one message, and exit status 2."""
    try:
        said = work()
    except (ConfigError, OSError) as error:
        # without the config's key (data.path), which this command does not have
        said = error.message if isinstance(error, ConfigError) else explain_os_error(error)
        print(f"error: {said}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return EXIT_SIGINT
    if said:
        print(said)
    return EXIT_DONE


def main() -> int:
    return door(sys.argv[1:], "mpdit.data", "data")


if __name__ == "__main__":
    sys.exit(main())
