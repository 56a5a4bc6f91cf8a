"""Files and arguments that are made to crash, to fill the memory or to fool a terminal."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpdit.config import read_run
from mpdit.disk import npz
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.disk.yamlfile import parse
from mpdit.errors import EXIT_FAILED, EXIT_USAGE, ConfigError, command
from mpdit.text import Paint, Printable, fit
from tests.helpers import ROOT
from tests.helpers.tiny import tiny_config

HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x9b1md\re\udcffé\n"
SHOWN = "a\\x1b]0;title\\x07b\\x1b[2Jc\\x9b1md\\re\\udcffé\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_control_characters_are_shown_and_only_colours_reach_a_terminal(
    stream: type[io.StringIO],
) -> None:
    out = stream()
    print(HOSTILE + Paint(True)("red", "red"), file=Printable(out), end="")  # type: ignore[arg-type]
    painted = "\x1b[31mred\x1b[0m" if out.isatty() else "\\x1b[31mred\\x1b[0m"
    assert out.getvalue() == SHOWN + painted


def test_a_live_display_shows_control_characters_too() -> None:
    (line,) = fit([HOSTILE], 80).renderables
    assert line.plain == SHOWN


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError(HOSTILE), EXIT_USAGE),
        (PermissionError(13, "Permission denied", HOSTILE), EXIT_FAILED),
        (OSError(28, "No space left on device", "/file"), EXIT_FAILED),
    ],
)
def test_a_commands_error_is_one_printable_message(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        print(HOSTILE)
        raise error

    assert command(fails)() == status
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert "\x1b" not in said.out + said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("door", [["launch.py", "--help"], ["-m", "mpdit.catalogue"]])
def test_a_command_that_cannot_print_says_so_and_nothing_else(door: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, *door], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == EXIT_FAILED
    assert done.stderr == "error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("text", ['"a\\0"', '"a\\e[31m"', '{"a\\x9b": 1}', '[x, "\\x7f"]'])
def test_control_characters_are_refused_in_what_people_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"g:1: text holds the control character \\x"):
        parse(text, "g")


@pytest.mark.parametrize("key", ["path", "inception", "dinov2"])
def test_a_path_with_nul_is_refused_wherever_it_comes_from(key: str) -> None:
    section = "data" if key == "path" else "evaluate"
    tree = tiny_config().resolved()
    tree[section][key] = "a\0b"
    with pytest.raises(ConfigError, match=rf"{section}\.{key}: 'a.*x00b' holds a control"):
        read_run(tree)


@pytest.mark.parametrize("word", ["1" * 400_000 + "x", "1_" * 200_000 + "x", "1" * 400_000 + ".e"])
@pytest.mark.parametrize("dumped", [False, True])
def test_long_words_are_read_in_time_that_grows_as_they_do(word: str, dumped: bool) -> None:
    assert parse(f"a: {word}", dumped=dumped).tree == {"a": word}  # minutes, were it quadratic


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000])
def test_text_that_is_nested_too_deeply_is_damaged(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(text + b'\n{"step": 1}\n')
    assert read_rows(file) == [{"step": 1}]


@pytest.mark.parametrize("content", ["null", "3", '{"a": 1}', '["a", 1]', "[null]"])
def test_damaged_names_and_counts_of_classes_count_as_absent(
    tiny_run: RunDir, content: str
) -> None:
    for name in ("classes.json", "images.json"):
        (tiny_run.path / name).write_text(content)
    assert tiny_run.class_names() is None
    assert tiny_run.images_by_class() is None


def bomb(file: Path, **shapes: tuple[int, ...]) -> None:
    """An .npz of zeros, of which only the headers say how many they are."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in shapes.items():
            header = io.BytesIO()
            kind = "|u1" if name == "arr_0" else "<f8"
            np.lib.format.write_array_header_1_0(
                header, {"descr": kind, "fortran_order": False, "shape": shape}
            )
            archive.writestr(f"{name}.npy", header.getvalue())


HUGE = 10**11
READERS: dict[str, tuple[Callable[[Path], object], dict[str, tuple[int, ...]]]] = {
    "an image": (npz.contents, {"arr_0": (2, HUGE, 1, 1)}),
    "labels": (npz.labels, {"arr_0": (2, 1, 1, 1), "arr_1": (HUGE,)}),
    "a mean": (npz.statistics, {"mu": (HUGE,), "sigma": (1, 1)}),
    "a covariance": (npz.statistics, {"mu": (0,), "sigma": (HUGE, HUGE)}),
    "an extractor": (npz.extractor, {"extractor": (HUGE,)}),
}


@pytest.mark.parametrize("name", READERS)
def test_what_a_file_declares_is_bounded_before_it_is_allocated(tmp_path: Path, name: str) -> None:
    read, shapes = READERS[name]
    file = tmp_path / "bomb.npz"
    bomb(file, **shapes)
    with pytest.raises(npz.DamagedError, match=r"larger than|more than"):
        read(file)


def test_labels_are_as_many_as_images(tmp_path: Path) -> None:
    file = tmp_path / "samples.npz"
    np.savez(file, np.zeros((3, 8, 8, 1), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(npz.DamagedError, match="for 3 images"):
        npz.labels(file)
