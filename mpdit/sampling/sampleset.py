"""Sample sets on disk: batches while they are drawn, then one ADM-style file and a picture."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from mpdit.data import datasets
from mpdit.disk import npz
from mpdit.disk.files import write_atomic, written_aside
from mpdit.errors import ConfigError
from mpdit.runtime.distributed import World
from mpdit.sampling.drawing import Drawing, labels

GRID_COLUMNS = 10
GRID_ROWS = 8
CAPTION_PIXELS = 13


@dataclass(frozen=True)
class Shards:
    """The batches of a set that is being drawn, each in a file once it is whole."""

    folder: Path
    drawing: Drawing
    batch_size: int

    @property
    def batches(self) -> list[range]:
        count, size = self.drawing.count, self.batch_size
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    @property
    def _description(self) -> str:
        drawing = self.drawing
        what = {"run": drawing.run.id, "count": drawing.count, **drawing.record()}
        return json.dumps(what, indent=1)

    def check(self, world: World) -> None:
        """See whether the folder, if there is one, is of this set: set.json says what it is of.

        Raises:
            ConfigError: in every process, when it holds batches of another set.
        """
        file = self.folder / "set.json"
        other = file.exists() and json.loads(file.read_text()) != json.loads(self._description)
        if world.largest(other):
            raise ConfigError(
                f"{self.folder} holds a part of another sample set: delete it to draw this one"
            )

    def claim(self, world: World) -> None:
        """Make the folder, in which what the set is stands in set.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if world.main:
            write_atomic(self.folder / "set.json", self._description)

    def file(self, indices: range) -> Path:
        """By both ends: the batch size may be another after a resume."""
        return self.folder / f"shard_{indices.start:08d}-{indices.stop:08d}.npy"

    def save(self, indices: range, images: UInt8[np.ndarray, "n height width channels"]) -> None:
        with written_aside(self.file(indices), sync=False) as temporary, temporary.open("wb") as f:
            np.save(f, images)

    def join(self, out: Path, names: Sequence[str] | None = None) -> None:
        """Write the set and its grid, and remove the folder; ``names`` are the classes'."""
        batches = (np.load(self.file(indices)) for indices in self.batches)
        classes = labels(range(self.drawing.count), self.drawing.classes).numpy()
        with written_aside(out) as temporary:
            npz.write(temporary, batches, classes)
        self.finish(out, names)

    def finish(self, out: Path, names: Sequence[str] | None = None) -> None:
        """Write the grid of a set that is whole, and remove the folder; set.json goes last."""
        images = next(npz.images(out, GRID_COLUMNS * GRID_ROWS))
        captions = [names[label] for label in npz.labels(out)[: len(images)]] if names else []
        write_grid(images, grid_file(out), captions)
        for file in self.folder.glob("shard_*"):
            file.unlink(missing_ok=True)  # by the process from which this one took the run
        shutil.rmtree(self.folder, ignore_errors=True)


def shards_folder(samples: Path) -> Path:
    """Where the batches of a set are kept until all are there."""
    return samples.with_suffix(".shards")


def grid_file(samples: Path) -> Path:
    """The picture beside a set; that of a run's own samples.npz is grid.png."""
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
        captions: a line under each image, cut to its width; none: no such lines.
    """
    rows = [images[i : i + GRID_COLUMNS] for i in range(0, len(images), GRID_COLUMNS)]
    rows = [row for row in rows if len(row) == len(rows[0])]
    margin = ((1, 1), (1, 1), (0, 0))  # dark digits on a dark ground need a line between them
    tiled = np.concatenate(
        [np.concatenate([np.pad(i, margin, constant_values=128) for i in row], 1) for row in rows]
    )
    factor = max(1, 32 // images.shape[1])
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
        text = caption.encode("latin-1", "replace").decode("latin-1")  # what the font has
        ImageDraw.Draw(strip).text((1, 0), text, fill="white", font=font)
        taller.paste(strip, (column * width, row * (height + CAPTION_PIXELS) + height))
    return taller
