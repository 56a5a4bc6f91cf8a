"""Read every image of a folder once, and report problems. No torch."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from pydantic import PositiveInt, TypeAdapter

from mpdit.data.images import ImageFolder, check_shape, summary, to_mode, unreadable
from mpdit.errors import ConfigError
from mpdit.progress import Progress

AT_ONCE = 1024
"""The most images that wait in the threads' queue."""
MANY = 2000
"""The number of images from which an automatic check shows its progress."""
KIND = "readable"
"""The beginning of the names of cached results."""

_REMEMBERED = TypeAdapter(tuple[str, tuple[PositiveInt, PositiveInt]])


@dataclass(frozen=True)
class _Seen:
    mode: str = ""
    shape: tuple[int, int] = (1, 1)
    turned: bool = False
    problem: str = ""


@dataclass
class Report:
    """The result of a check of a folder.

    Attributes:
        problems: one line for each problem.
        modes: images by mode, as Pillow names it.
        shapes: images by width and height.
        turned: images with an EXIF orientation, which is ignored.
        thinnest, thinnest_shape: the image whose sides differ most.
    """

    problems: list[str] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    shapes: Counter[tuple[int, int]] = field(default_factory=Counter)
    turned: int = 0
    thinnest: str = ""
    thinnest_shape: tuple[int, int] = (1, 1)

    def add(self, name: str, seen: _Seen) -> None:
        """Count one image."""
        if seen.problem:
            self.problems.append(seen.problem)
        if seen.mode:
            self.modes[seen.mode] += 1
            self.shapes[seen.shape] += 1
        self.turned += seen.turned
        if _ratio(seen.shape) > _ratio(self.thinnest_shape):
            self.thinnest, self.thinnest_shape = name, seen.shape


def read_all(folder: ImageFolder, size: int | None, advance: Callable[[int], None]) -> Report:
    """Decode every image, in several threads; remember the result when there is no problem.

    Args:
        size: report images that are too thin to be scaled to this side (pixels).
        advance: called with the number of images that were read.
    """
    report = Report()
    memory = folder.cache_file(KIND)  # named by the files' stamps before reading
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        for start in range(0, len(folder.names), AT_ONCE):
            names = folder.names[start : start + AT_ONCE]
            for name, seen in zip(
                names, threads.map(lambda name: _look(folder.root / name, size), names), strict=True
            ):
                report.add(name, seen)
                advance(1)
    if memory is not None and not report.problems:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text(json.dumps([report.thinnest, report.thinnest_shape]))
    return report


def check_images(folder: ImageFolder, size: int) -> None:
    """Read every image, unless all were read since the last change of a file.

    Processes that check the same folder wait for the first.

    Args:
        size: the side that images will be scaled to (pixels).

    Raises:
        ConfigError: naming the first image that cannot be read, or the thinnest when it cannot be
            scaled.
    """
    memory = folder.cache_file(KIND)
    with _one_at_a_time(memory):
        known = _recall(memory)
        if known is None:
            report = _read_quietly(folder)
            if report.problems:
                raise ConfigError(summary(report.problems, folder.root), "data.path")
            known = report.thinnest, report.thinnest_shape
    name, shape = known
    try:
        check_shape(shape, size)
    except ValueError as error:
        raise ConfigError(unreadable(folder.root / name, error), "data.path") from None


def _read_quietly(folder: ImageFolder) -> Report:
    """Read a folder for an automatic check: progress is shown only for a large folder."""
    count = len(folder.names)
    if count < MANY:
        return read_all(folder, None, lambda _: None)
    with Progress("check the images", count) as progress:
        return read_all(folder, None, progress.advance)


@contextmanager
def _one_at_a_time(memory: Path | None) -> Iterator[None]:
    """Hold the cached result's file, where there can be one."""
    with ExitStack() as stack:
        with suppress(OSError):  # a read-only cache, a file system without locks
            if memory is not None:
                memory.parent.mkdir(parents=True, exist_ok=True)
                fcntl.flock(stack.enter_context(memory.open("a")), fcntl.LOCK_EX)
        yield


def _recall(memory: Path | None) -> tuple[str, tuple[int, int]] | None:
    """The thinnest image of a folder that was read without a problem."""
    if memory is None:
        return None
    with suppress(OSError, ValueError):  # none there, or damaged
        return _REMEMBERED.validate_json(memory.read_bytes())
    return None


def _look(file: Path, size: int | None) -> _Seen:
    """Decode one image."""
    mode, shape = "", (1, 1)
    try:
        with Image.open(file) as image:
            mode, shape = image.mode, image.size
            if size is not None:
                check_shape(shape, size)
            to_mode(image, "RGB")
            return _Seen(mode, shape, _is_turned(image))
    except Exception as error:  # Pillow raises errors of any kind on damaged files
        return _Seen(mode, shape, problem=unreadable(file, error))


def _is_turned(image: Image.Image) -> bool:
    """Whether the image has an EXIF orientation that Pillow does not apply (it does in TIFF)."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:  # EXIF may be damaged in an image that is not
        return False


def describe(folder: ImageFolder, report: Report) -> str:
    """The classes, modes and sizes, as text."""
    counts = np.bincount(folder.labels, minlength=len(folder.classes)).tolist()
    names = folder.class_names or ("(no classes)",)
    width = max(len(name) for name in ("class", *names))
    lines = [f"{'class':{width}}  images"]
    lines += [f"{name:{width}}  {n:6,}" for name, n in zip(names, counts, strict=True)]
    lines.append(f"{'all':{width}}  {sum(counts):6,}")
    if report.modes:
        modes = ", ".join(f"{mode} {count:,}" for mode, count in report.modes.most_common())
        sides = sorted(report.shapes, key=lambda shape: (min(shape), max(shape)))
        smallest, largest, common = sides[0], sides[-1], report.shapes.most_common(1)[0]
        sizes = f"{_size(smallest)} to {_size(largest)}"
        if len(sides) == 1:
            sizes = f"all {_size(smallest)}"
        elif common[1] > 1:
            sizes += f", most often {_size(common[0])} ({common[1]:,})"
        lines += ["", f"modes: {modes}", f"sizes: {sizes}"]
    if report.turned:
        of = "image has" if report.turned == 1 else "images have"
        lines.append(f"EXIF: {report.turned:,} {of} an orientation, which is ignored (as by ADM)")
    return "\n".join(lines)


def _ratio(shape: tuple[int, int]) -> float:
    return max(shape) / min(shape)


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]}×{shape[1]}"
