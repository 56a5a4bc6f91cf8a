"""Sample sets on disk: batches while they are drawn, then one ADM-style file and a picture."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from mpdit.data import datasets
from mpdit.disk import lease, npz
from mpdit.disk.files import make_folder, write_atomic, written_aside
from mpdit.disk.identity import Identity, parse_mark, same_id
from mpdit.disk.npz import DamagedError
from mpdit.errors import ConfigError
from mpdit.runtime.distributed import World
from mpdit.runtime.session import log
from mpdit.sampling.drawing import Drawing, labels

GRID_COLUMNS = 10
GRID_ROWS = 8
CAPTION_PIXELS = 13
MAX_CELL = 96
"""Pixels: an image is not enlarged beyond them for its caption."""
KNOWN = {"run", "data", "count", "sampler", *(field.name for field in fields(Drawing))} - {"images"}
"""The keys of set.json."""


@dataclass(frozen=True)
class Shards:
    """The batches of a set that is being drawn, each in a file once it is whole."""

    folder: Path
    drawing: Drawing
    batch_size: int
    identity: Identity

    @property
    def batches(self) -> list[range]:
        count, size = self.drawing.count, self.batch_size
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    @property
    def _description(self) -> dict[str, Any]:
        drawing = self.drawing
        told = {**self.identity.short(), "count": drawing.count, **drawing.record()}
        plain: dict[str, Any] = json.loads(json.dumps(told))
        return plain

    def check(self, world: World) -> None:
        """Compare set.json of the folder, if there is one, with this set.

        Batches are removed with a warning when set.json is damaged or written by a newer version.

        Raises:
            ConfigError: in every process, when the folder holds batches of another set.
        """
        if world.largest(world.main and not self._is_mine()):
            raise ConfigError(
                f"{self.folder} holds a part of another sample set: delete it to draw this one"
            )

    def _is_mine(self) -> bool:
        file = self.folder / "set.json"
        if not file.exists():
            return True
        told, mine = parse_mark(file.read_bytes()), self._description
        if not {"run", "count"} <= told.keys():
            return self._discard(f"{file} is damaged")
        if added := told.keys() - KNOWN:
            return self._discard(f"{file} has what this version does not know ({min(added)})")
        data = told.get("data"), mine["data"]
        return (
            same_id(str(told["run"]), mine["run"])
            and (None in data or data[0] == data[1])
            and told.get("classes") == mine.get("classes")
            # an older version recorded less
            and all(mine.get(key) == told[key] for key in told.keys() - {"run", "data"})
        )

    def _discard(self, why: str) -> bool:
        log.warning("%s: the batches beside it are drawn again", why)
        lease.check(self.folder)
        shutil.rmtree(self.folder)
        return True

    def claim(self, world: World) -> None:
        """Create the shard folder and write the set's description to set.json."""
        make_folder(self.folder)
        if world.main:
            write_atomic(self.folder / "set.json", json.dumps(self._description, indent=1))

    def file(self, indices: range) -> Path:
        """The batch's file, named by both ends, as the batch size may change after a resume."""
        return self.folder / f"shard_{indices.start:08d}-{indices.stop:08d}.npy"

    def save(self, indices: range, images: UInt8[np.ndarray, "n height width channels"]) -> None:
        """Write a batch as .npy, and its SHA-256 (32 bytes) behind it, where numpy never looks."""
        buffer = io.BytesIO()
        np.save(buffer, images)
        content = buffer.getvalue()
        with written_aside(self.file(indices), sync=False) as temporary:
            temporary.write_bytes(content + hashlib.sha256(content).digest())

    def read(self, indices: range) -> UInt8[np.ndarray, "n height width channels"]:
        """A batch; one of version 0.1 has no checksum.

        Raises:
            FileNotFoundError: when it has not been drawn.
            DamagedError: when it is not what was written.
        """
        file = self.file(indices)
        content = file.read_bytes()
        stream = io.BytesIO(content)
        try:
            images = npz.read_array(stream, len(content))
        except (ValueError, EOFError, OSError):
            raise DamagedError(f"{file} is damaged: it is torn") from None
        end = stream.tell()
        checksum = content[end:]
        if checksum and checksum != hashlib.sha256(content[:end]).digest():
            raise DamagedError(f"{file} is damaged: it is not what was written")
        if images.ndim != 4 or len(images) != len(indices) or images.dtype != np.uint8:
            raise DamagedError(f"{file} is damaged: it holds {images.dtype} {images.shape}")
        return images

    def is_drawn(self, indices: range) -> bool:
        """Whether a batch exists and is whole; a damaged one is logged."""
        try:
            self.read(indices)
        except FileNotFoundError:
            return False
        except DamagedError as error:
            log.warning("%s; it is drawn again", error)
            return False
        return True

    def join(self, out: Path, names: Sequence[str] | None = None) -> None:
        """Write the set and its grid, and remove the folder; ``names`` are the classes'.

        Raises:
            DamagedError: when a batch is damaged; the same command draws it again.
        """
        batches = map(self.read, self.batches)
        with written_aside(out) as temporary:
            npz.write(temporary, batches, labels(self.drawing), self.identity.mark())
        self.finish(out, names)

    def finish(self, out: Path, names: Sequence[str] | None = None) -> None:
        """Write the grid of a set that is whole, and remove the folder; set.json goes last."""
        images = next(npz.images(out, GRID_COLUMNS * GRID_ROWS))
        captions = [names[label] for label in npz.labels(out)[: len(images)]] if names else []
        write_grid(images, grid_file(out), captions)
        lease.check(self.folder)
        for file in self.folder.glob("shard_*"):
            file.unlink(missing_ok=True)  # the run's former process may have removed it
        shutil.rmtree(self.folder, ignore_errors=True)


def shards_folder(samples: Path) -> Path:
    """The folder of a set's batches until all exist."""
    return samples.with_suffix(".shards")


def grid_file(samples: Path) -> Path:
    """The picture beside a set; for a run's own samples.npz it is grid.png."""
    return samples.with_name("grid.png" if samples.name == "samples.npz" else f"{samples.stem}.png")


def to_uint8(
    pixels: Float32[np.ndarray, "images channels height width"], how: Literal["round", "truncate"]
) -> UInt8[np.ndarray, "images height width channels"]:
    """[-1, 1] → 0..255, channels last; ``truncate`` rounds down, as the official code does."""
    if how == "round":
        return datasets.to_uint8(pixels)
    return np.clip((pixels + 1) * 127.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def write_grid(
    images: UInt8[np.ndarray, "n height width channels"], file: Path, captions: Sequence[str] = ()
) -> None:
    """A PNG of samples, ten to a row, small images enlarged without smoothing.

    Args:
        captions: a line under each image. Small images are enlarged for it, to at most `MAX_CELL`
            pixels; longer text is cut. None: no such lines.
    """
    rows = [images[i : i + GRID_COLUMNS] for i in range(0, len(images), GRID_COLUMNS)]
    rows = [row for row in rows if len(row) == len(rows[0])]
    margin = ((1, 1), (1, 1), (0, 0))  # dark digits on a dark ground need a line between them
    tiled = np.concatenate(
        [np.concatenate([np.pad(i, margin, constant_values=128) for i in row], 1) for row in rows]
    )
    factor = max(1, 32 // images.shape[1])
    if captions:
        widest = max(ImageFont.load_default().getlength(_latin(text)) for text in captions)
        side = images.shape[2]
        factor = max(factor, min(math.ceil((widest + 4) / side), MAX_CELL // side))
    large = tiled.repeat(factor, axis=0).repeat(factor, axis=1)
    grid = Image.fromarray(large.squeeze(-1) if large.shape[-1] == 1 else large)
    if captions:
        grid = _with_captions(grid, captions, len(rows), len(rows[0]))
    buffer = io.BytesIO()
    grid.save(buffer, "PNG")
    write_atomic(file, buffer.getvalue())


def _with_captions(
    grid: Image.Image, captions: Sequence[str], rows: int, columns: int
) -> Image.Image:
    """The grid with a strip under each row, in which the captions are."""
    width, height = grid.width // columns, grid.height // rows
    font = ImageFont.load_default()
    taller = Image.new(grid.mode, (grid.width, rows * (height + CAPTION_PIXELS)))
    for row in range(rows):
        top = row * (height + CAPTION_PIXELS)
        taller.paste(grid.crop((0, row * height, grid.width, (row + 1) * height)), (0, top))
    for number, caption in enumerate(captions[: rows * columns]):
        row, column = divmod(number, columns)
        strip = Image.new(grid.mode, (width, CAPTION_PIXELS))
        ImageDraw.Draw(strip).text((1, 0), _latin(caption), fill="white", font=font)
        taller.paste(strip, (column * width, row * (height + CAPTION_PIXELS) + height))
    return taller


def _latin(text: str) -> str:
    """The text in the characters of Pillow's font."""
    return text.encode("latin-1", "replace").decode("latin-1")
