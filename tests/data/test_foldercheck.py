"""A folder is read as torchvision's ImageFolder reads it, or refused with an example."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpdit.config import DataConfig
from mpdit.data import __main__ as command
from mpdit.data import foldercheck
from mpdit.data.datasets import check_available, class_names
from mpdit.data.images import ImageFolder
from mpdit.errors import ConfigError


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Two classes of ten and twelve images of 12×9 pixels."""
    root = tmp_path / "flowers"
    for name, count in (("daisy", 10), ("rose", 12)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            file = root / name / f"{number:02}.png"
            Image.new("RGB", (12, 9), (number, 0, 0)).save(file)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in which files count as settled at once."""
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mpdit.disk.stamp.SETTLED", -1.0)
    return tmp_path / "cache"


def data(root: Path, size: int = 8) -> DataConfig:
    told = {"name": "folder", "path": str(root), "channels": 3, "size": size, "classes": 2}
    return DataConfig.model_validate(told)


def check(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mpdit.data", "check", *map(str, arguments)])
    return command.main()


def beside(root: Path) -> str:
    (root / "daisy" / "03.png").rename(root / "stray.png")
    return rf"{root}/stray\.png lies beside sub-folders \(daisy\).* 1 image has no class"


def nested(root: Path) -> str:
    (root / "rose" / "wild" / "white").mkdir(parents=True)
    (root / "rose" / "03.png").rename(root / "rose" / "wild" / "white" / "03.png")
    return r"rose/wild/white/03\.png lies too deep"


def emptied(root: Path) -> str:
    (root / "aster").mkdir()
    (root / "aster" / "notes.txt").write_text("none yet")
    return r"the class .*/aster has no images"


def only_hidden(root: Path) -> str:
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._00.png").write_bytes(b"\0\5\x16\7")
    return r"the class .*/__MACOSX has no images"


def broken_link(root: Path) -> str:
    (root / "rose" / "link.png").symlink_to(root / "gone.png")
    return r"rose/link\.png is neither a file nor a link to one"


def pipe(root: Path) -> str:
    os.mkfifo(root / "rose" / "pipe.png")
    return r"rose/pipe\.png is neither a file nor a link to one"


def not_utf8(root: Path) -> str:
    (root / "rose" / "03.png").rename(root / "rose" / os.fsdecode(b"\xff.png"))
    return r"rose/\\xff\.png': the name is not UTF-8"


def endless(root: Path) -> str:
    (root / "rose" / "loop").symlink_to(root / "rose")
    return r"rose/loop/00\.png lies too deep"


WAYS = [beside, nested, emptied, only_hidden, broken_link, pipe, not_utf8, endless]


@pytest.mark.parametrize("damage", WAYS)
def test_no_image_and_no_class_is_dropped_without_a_message(
    flowers: Path, damage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = damage(flowers)
    with pytest.raises(ConfigError, match=message):
        ImageFolder.scan(flowers)
    assert check(monkeypatch, flowers) == 2
    assert "error: 1 problem in" in capsys.readouterr().err


def test_an_unreadable_folder_is_named(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(path: Path):
        if Path(path).name == "daisy":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ConfigError, match=r"the folder .*/daisy cannot be read: Permission denied"):
        ImageFolder.scan(flowers)


def test_hidden_files_folders_named_like_images_and_other_files_are_no_images(
    flowers: Path,
) -> None:
    names = ImageFolder.scan(flowers).names
    (flowers / "daisy" / "._00.png").write_bytes(b"\0\5\x16\7")
    (flowers / "rose" / "folder.png").mkdir()
    (flowers / "rose" / ".thumbnails").mkdir()
    (flowers / "rose" / ".thumbnails" / "00.png").write_bytes(b"")
    (flowers / "README.txt").write_text("flowers")
    assert ImageFolder.scan(flowers).names == names


def test_classes_names_and_labels_are_those_of_torchvisions_image_folder(flowers: Path) -> None:
    folders = pytest.importorskip("torchvision.datasets").ImageFolder(flowers)
    ours = ImageFolder.scan(flowers)
    assert list(ours.classes) == folders.classes
    theirs = [(os.path.relpath(file, flowers), label) for file, label in folders.samples]
    assert list(zip(ours.names, ours.labels.tolist(), strict=True)) == theirs


def test_class_names_are_those_of_the_folders_and_a_flat_folder_has_none(flowers: Path) -> None:
    assert class_names(data(flowers)) == ("daisy", "rose")
    flat = ImageFolder.scan(flowers / "rose")
    assert (flat.class_names, len(flat.names)) == (None, 12)


def test_check_counts_classes_modes_sizes_and_orientations(
    flowers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 30)).save(flowers / "rose" / "00.png", exif=exif)
    assert check(monkeypatch, flowers) == 0
    assert capsys.readouterr().out.splitlines() == [
        "class  images",
        "daisy      10",
        "rose       12",
        "all        22",
        "",
        "modes: RGB 21, L 1",
        "sizes: 12×9 to 20×30, most often 12×9 (21)",
        "EXIF: 1 image has an orientation, which is ignored (as by ADM)",
        "",
        f"{flowers}: every image can be read",
    ]


def test_check_lists_everything_that_is_wrong_and_counts_the_rest(
    flowers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (flowers / "aster").mkdir()
    (flowers / "daisy" / "03.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(flowers / "rose" / "99.tif")
    Image.new("L", (60_000, 1)).save(flowers / "rose" / "thin.png")
    assert check(monkeypatch, flowers, "--size", 256) == 2
    said = capsys.readouterr()
    assert "rose       14" in said.out
    lines = said.err.strip().splitlines()[-5:]
    assert lines[0] == f"error: 4 problems in {flowers}:"
    for line, part in zip(
        lines[1:], ("aster has no images", "03.png cannot", "mode F", "too thin"), strict=True
    ):
        assert line.startswith("  ")
        assert part in line
    for number in range(100):
        (flowers / "aster" / f"{number}.png").write_bytes(b"")
    assert check(monkeypatch, flowers) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 + 1 + 50 + 1  # progress, count, problems, rest
    assert lines[-1] == "  and 52 more"


def test_a_broken_image_of_the_test_split_is_named_before_anything_is_trained(
    flowers: Path,
) -> None:
    check_available(data(flowers))
    file = flowers / "daisy" / "09.png"
    assert ImageFolder.scan(flowers).split("test").names[0] == "daisy/09.png"
    file.write_bytes(file.read_bytes()[:48])
    with pytest.raises(ConfigError, match=r"data\.path: .*09\.png cannot be read") as caught:
        check_available(data(flowers))
    assert "more problem" not in str(caught.value)
    (flowers / "rose" / "11.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"1 more problem; to list them: .* data check /"):
        check_available(data(flowers))


def test_images_are_read_once_until_one_changes(
    flowers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    look = foldercheck._look
    monkeypatch.setattr(
        foldercheck, "_look", lambda file, size: (looked.append(file.name), look(file, size))[1]
    )
    assert check(monkeypatch, flowers) == 0
    check_available(data(flowers))
    check_available(data(flowers, size=16))
    assert len(looked) == 22
    Image.new("RGB", (12, 9)).save(flowers / "rose" / "03.png")
    check_available(data(flowers))
    assert len(looked) == 44


def test_a_thin_image_is_named_from_what_is_remembered(flowers: Path) -> None:
    Image.new("L", (60_000, 1)).save(flowers / "rose" / "thin.png")
    check_available(data(flowers))
    with pytest.raises(ConfigError, match=r"rose/thin\.png .* too thin"):
        check_available(data(flowers, size=256))


@pytest.mark.parametrize("damage", [b"", b"\x80", b"null", b"[" * 200_000, b'["x", [1, 0]]'])
def test_a_damaged_result_in_the_cache_is_made_anew(
    flowers: Path, cache: Path, damage: bytes
) -> None:
    check_available(data(flowers))
    (kept,) = cache.rglob("readable*")
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    check_available(data(flowers))
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_time_only(flowers: Path, cache: Path) -> None:
    cache.write_text("a file, no folder")
    check_available(data(flowers))
    check_available(data(flowers))
