"""Format plain text for a terminal: numbers with units, aligned columns, colours."""

from __future__ import annotations

import io
import math
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that a terminal obeys or cannot show: Unicode's control characters except newline and
tab, and bytes of file names that are not UTF-8."""
_COLOURS = re.compile(r"(\033\[(?:(?:[0-4]|22|3\d|4\d|9[0-7])(?:;\d{1,3}){0,4})?m)")


def expanded(path: str) -> Path:
    """The path in a config, with ``~`` expanded, which no shell has done."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's raises where there is no such user


def printable(text: str, colours: bool = False) -> str:
    """The text with control characters as ``\\x1b``; ``colours`` keeps those of styles."""
    if colours:
        parts = _COLOURS.split(text)
        return "".join(part if i % 2 else printable(part) for i, part in enumerate(parts))
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class Printable:
    """A text stream that applies `printable` to its output; styles stay on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(printable(text, colours=self.stream.isatty()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def printable_output(out: TextIO, err: TextIO) -> Iterator[None]:
    """Replace control characters in everything that is printed meanwhile.

    Names and messages come from other people's files, and from Slurm. Characters that the encoding
    of ``out`` lacks are printed as ``?`` (``err`` has Python's own replacement).
    """
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="replace")
    guarded = (cast("TextIO", Printable(stream)) for stream in (out, err))
    with redirect_stdout(next(guarded)), redirect_stderr(next(guarded)):
        yield


def terminal(stream: TextIO) -> TextIO:
    """The stream itself, for a display that moves the cursor."""
    return stream.stream if isinstance(stream, Printable) else stream


class Paint:
    """Wraps text in a style, where there is a terminal to show it."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def __call__(self, text: str, style: str) -> str:
        return f"\033[{_CODES[style]}m{text}\033[0m" if self.colour and style and text else text


PLAIN = Paint(False)


def shell_line(*words: object) -> str:
    """A command line to be copied into a shell, quoted where that is needed."""
    return shlex.join(map(str, words))


def count(number: int, what: str) -> str:
    """The number with its noun: ``1 run``, ``1,000 runs``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """The time in its two largest units: ``42 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``."""
    total = max(0, round(seconds))
    for big, small, unit, rest in ((86400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if total >= big:
            return f"{total // big} {unit} {total % big // small} {rest}"
    return f"{total // 60} min {total % 60} s" if total >= 60 else f"{total} s"


def size_text(size: float) -> str:
    """Bytes with a decimal unit: ``12 bytes``, ``12 MB``, ``1.2 TB``."""
    if size < 1000:
        return f"{size:.0f} bytes"
    power = min(4, math.floor(math.log10(size * 1.0005) / 3))
    scaled = size / 1000**power
    digits = 1 if scaled < 9.95 else 0
    return f"{scaled:,.{digits}f} {'kMGT'[power - 1]}B"


def two_digits(number: float) -> str:
    """A positive number, rounded to two significant digits: ``4,300``, ``0.12``."""
    digits = 1 - math.floor(math.log10(number))
    return f"{round(number, digits):,.{max(0, digits)}f}"


def shortlist(names: Sequence[str], most: int) -> str:
    """The first ``most`` names and the number of the others: ``a, b, c, … 4 more``."""
    more = f", … {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_line(text: str, most: int = 300) -> str:
    """Any text as one printable line, cut after ``most`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"{line[:most]}…"


def bar(fraction: float, width: int) -> str:
    """A progress bar of ``width`` characters."""
    full = round(max(0.0, min(1.0, fraction)) * width)
    return "━" * full + "─" * (width - full)


def align(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[list[str]]:
    """Pad the cells of each column to one width; ``right`` marks the columns aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        for row in rows
    ]


def fit(lines: Iterable[str], width: int) -> Any:
    """Lines for rich's live display, each cropped to ``width`` columns."""
    from rich.console import Group  # here: only a live display waits for rich
    from rich.text import Text

    safe = (printable(line, colours=True) for line in lines)
    texts = [Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in safe]
    for text in texts:
        text.truncate(width, overflow="ellipsis")
    return Group(*texts)


def painter(out: TextIO | None = None) -> Paint:
    """Colours on a terminal (of standard output, unless another is given), none elsewhere."""
    return Paint((out or sys.stdout).isatty() and "NO_COLOR" not in os.environ)
