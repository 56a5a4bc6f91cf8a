"""Check images, make latent stores and reference files: ``python -m mpdit.data COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mpdit.data.foldercheck import check_images, describe, read_all
from mpdit.data.images import ImageFolder
from mpdit.data.latents import LatentStore, read_manifest, verify
from mpdit.errors import ConfigError, command, explain_os_error
from mpdit.progress import Progress
from mpdit.text import count

DEFAULT_VAE = "stabilityai/sd-vae-ft-mse"
MOST_LINES = 50
"""Problems of a folder that are listed."""

STOPPED = {"encode": "stopped; the same command resumes from the last whole shard"}

ENCODE = """\
Encode images, each as it is and mirrored, into a latent store that a run reads
(data: {name: latents, path: STORE, ...}).

SOURCE is one of
  a folder of images      a sub-folder per class, in alphabetical order, or a flat one (one class)
  hf:NAME[:SPLIT]         a Hugging Face data set (split: train by default)
  a folder with the official code's posterior_means.pt, posterior_stds.pt, labels.pt, stats.pt,
                          which are used unchanged

Stopped at any moment, the same command resumes. On several GPUs:
  torchrun --nproc-per-node 8 -m mpdit.data encode SOURCE STORE
"""

CHECK = """\
Read every image of a folder once. Print what is wrong with it, and its classes, modes and sizes.
The exit status is 2 when something is wrong.
"""
VERIFY = "Read a whole latent store and compare every file with its checksum."
REFERENCE = """\
Write real images into a file of ADM's layout: arr_0 (uint8 N, H, W, C), arr_1 (labels) and, with
--extractor, mu and sigma. A run on latents is compared with STORE/reference.npz:

  python -m mpdit.data reference STORE/reference.npz --data FOLDER --store STORE

--data is one of
  a data set's name       digits or fashion-mnist: their train split
  a folder of images      their train split, in colour and of --size; with --store, all of them, as
                          they were encoded
  hf:NAME[:SPLIT]         a Hugging Face data set (split: train by default)
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mpdit.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, description: str) -> Any:
        layout = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(name, help=help, description=description, formatter_class=layout)
        return made.add_argument

    add = command("encode", "make a latent store from images or official latents", ENCODE)
    add("source", metavar="SOURCE")
    add("store", metavar="STORE", type=Path, help="the folder to make")
    vae = f"a diffusers AutoencoderKL, by name or folder (default: {DEFAULT_VAE})"
    add("--vae", default=DEFAULT_VAE, metavar="NAME", help=vae)
    size = "side of the square that images are cropped to, as ADM does it (default: 128)"
    add("--size", type=int, default=128, metavar="PIXELS", help=size)
    at_once = "images at once (default: 64)"
    add("--batch-size", type=int, default=64, metavar="N", help=at_once)

    add = command("check", "read every image of a folder and list what is wrong", CHECK)
    add("folder", metavar="FOLDER", type=Path)
    size = "the side that a run scales images to: also report images too thin for it"
    add("--size", type=int, metavar="PIXELS", help=size)

    add = command("verify", "compare every file of a latent store with its checksum", VERIFY)
    add("store", metavar="STORE", type=Path)

    add = command("reference", "make a file of real images to compare samples with", REFERENCE)
    add("out", metavar="OUT.npz", type=Path, help="the file to make")
    add("--data", required=True, metavar="NAME|FOLDER", help="where the images come from")
    add("--store", type=Path, metavar="STORE", help="the latent store that was encoded from them")
    add("--size", type=int, metavar="PIXELS", help="side of the square that images are cropped to")
    add("--extractor", metavar="NAME", help="add the mean and covariance of its features")
    return parser


def _encode(arguments: argparse.Namespace) -> str:
    if arguments.size < 1 or arguments.batch_size < 1:
        raise ConfigError("--size and --batch-size have to be at least 1")
    import torch

    from mpdit.encoding.build import build_store
    from mpdit.encoding.encoders import FolderPictures, VaeEncoder, open_pictures
    from mpdit.encoding.officiallatents import OFFICIAL, OfficialLatents
    from mpdit.encoding.shards import Encoder

    rank, processes, local = (
        int(os.environ.get(key, default))
        for key, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    encoder: Encoder
    if (Path(arguments.source) / OFFICIAL[0]).exists():
        encoder = OfficialLatents(Path(arguments.source), arguments.vae)
    else:
        device = torch.device(f"cuda:{local}" if torch.cuda.is_available() else "cpu")
        pictures = open_pictures(arguments.source)
        encoder = VaeEncoder(pictures, arguments.vae, arguments.size, arguments.batch_size, device)
        if isinstance(pictures, FolderPictures):
            check_images(pictures.folder, arguments.size)
    manifest = build_store(encoder, arguments.store, rank, processes)
    return f"{arguments.store}: {_describe(arguments.store)}" if manifest else ""


def _check(arguments: argparse.Namespace) -> str:
    if arguments.size is not None and arguments.size < 1:
        raise ConfigError("--size has to be at least 1")
    folder, problems = ImageFolder.survey(arguments.folder)
    with Progress("check", len(folder.names)) as progress:
        report = read_all(folder, arguments.size, progress.advance)
    print(describe(folder, report))
    if problems := problems + report.problems:
        listed = problems[:MOST_LINES]
        if len(problems) > MOST_LINES:
            listed.append(f"and {len(problems) - MOST_LINES:,} more")
        found = count(len(problems), "problem")
        raise ConfigError("\n  ".join([f"{found} in {arguments.folder}:", *listed]))
    return f"\n{arguments.folder}: every image can be read"


def _verify(arguments: argparse.Namespace) -> str:
    images = read_manifest(arguments.store).images
    with Progress("verify", images) as progress:
        verify(arguments.store, progress.advance)
    return f"{arguments.store} is whole: {_describe(arguments.store)}"


def _reference(arguments: argparse.Namespace) -> str:
    from mpdit.evaluation.referencefile import Request, make_reference

    request = Request(arguments.data, arguments.size, arguments.store, arguments.extractor)
    count, height, width, channels = make_reference(arguments.out, request)
    more = f", mu and sigma of {arguments.extractor}" if arguments.extractor else ""
    return f"{arguments.out}: {count:,} images of {height}×{width}×{channels}{more}"


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


@command
def main() -> int:
    arguments = _parser().parse_args()
    try:
        commands = {"check": _check, "encode": _encode, "reference": _reference, "verify": _verify}
        said = commands[arguments.command](arguments)
    except (ConfigError, OSError) as error:
        # a config's key (data.path) is none of this command's words
        said = error.message if isinstance(error, ConfigError) else explain_os_error(error)
        print(f"error: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED.get(arguments.command, "stopped; nothing was written"), file=sys.stderr)
        return 130
    if said:
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
