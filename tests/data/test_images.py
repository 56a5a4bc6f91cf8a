"""Every mode that Pillow opens becomes the right 8-bit values, or is refused by file and mode."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from mpdit.data.images import ImageFolder
from mpdit.errors import ConfigError

SIDE = 8
LEVELS = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
DEEP = LEVELS * 1021 + 37
"""Sixteen bits, from 37 to 64,360."""
COLOURS = np.stack([LEVELS * 4, 255 - LEVELS * 4, LEVELS % 7 * 30], -1).astype(np.uint8)
ALPHA = (LEVELS % 5 * 60).astype(np.uint8)


def read(file: Path, channels: int) -> np.ndarray:
    """The pixels of the only image of its folder, (height, width, channels)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = ImageFolder.scan(file.parent)
        assert len(folder.names) == 1
        return folder.pixels(0, SIDE, channels).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.png", "<u2"), ("a.pgm", "<u2"), ("a.tif", "<u2"), ("a.png", ">u2"), ("a.tif", ">u2")],
)
def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path, name: str, dtype: str) -> None:
    Image.fromarray(DEEP.astype(dtype)).save(tmp_path / name)
    assert (read(tmp_path / name, 1)[..., 0] == DEEP >> 8).all()
    assert (read(tmp_path / name, 3) == (DEEP >> 8)[..., None]).all()


def test_a_pgm_of_ten_bits_is_scaled_by_its_maximum(tmp_path: Path) -> None:
    header = f"P5 {SIDE} {SIDE} 1023\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + (LEVELS * 16).astype(">u2").tobytes())
    assert (read(tmp_path / "a.pgm", 1)[..., 0] == np.rint(LEVELS * 16 / 1023 * 65535) // 256).all()


def refused(mode: str, save: Callable[[Path], None]) -> pytest.param:
    return pytest.param(f"mode {mode}", save, id=mode)


@pytest.mark.parametrize(
    ("mode", "save"),
    [
        refused("F", lambda file: Image.fromarray(DEEP / np.float32(65535)).save(file)),
        refused("I", lambda file: Image.fromarray(DEEP.astype(np.int32)).save(file)),
        refused("I;16", lambda file: Image.fromarray(DEEP).save(file, tiffinfo={262: 0})),
    ],
)
def test_a_mode_without_eight_bits_is_refused_with_file_and_mode(
    tmp_path: Path, mode: str, save: Callable[[Path], None]
) -> None:
    """Float, true 32-bit, and 16-bit with 0 as white, which Pillow does not invert."""
    save(tmp_path / "a.tif")
    with pytest.raises(ConfigError, match=rf"/a\.tif cannot be read as an image: {mode}"):
        read(tmp_path / "a.tif", 1)


RGB = Image.fromarray(COLOURS)
GREY = Image.fromarray((LEVELS * 4).astype(np.uint8))
MASK = Image.fromarray(ALPHA)
PALETTE = RGB.quantize(64)
LUMA = np.asarray(RGB.convert("L"))


def grey_palette() -> Image.Image:
    return Image.merge("LA", [GREY, MASK]).convert("PA")


def with_alpha() -> Image.Image:
    return Image.merge("RGBA", [*RGB.split(), MASK])


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("a.png", RGB, {}, COLOURS),
        ("a.png", GREY, {}, np.asarray(GREY)),
        ("a.png", GREY, {"transparency": 4}, np.asarray(GREY)),
        ("a.png", RGB, {"transparency": (0, 255, 0)}, COLOURS),
        ("a.png", with_alpha(), {}, COLOURS),
        ("a.webp", with_alpha(), {"lossless": True, "exact": True}, COLOURS),
        ("a.tif", with_alpha(), {}, COLOURS),
        ("a.png", Image.merge("LA", [GREY, MASK]), {}, np.asarray(GREY)),
        ("a.png", PALETTE, {}, np.asarray(PALETTE.convert("RGB"))),
        ("a.png", PALETTE, {"transparency": 3}, np.asarray(PALETTE.convert("RGB"))),
        ("a.png", PALETTE, {"transparency": bytes(64)}, np.asarray(PALETTE.convert("RGB"))),
        ("a.tif", grey_palette(), {}, np.asarray(GREY)),
        ("a.png", GREY.point(lambda v: 255 * (v > 99), "1"), {}, (np.asarray(GREY) > 99) * 255),
        ("a.bmp", RGB, {}, COLOURS),
        ("a.ppm", RGB, {}, COLOURS),
    ],
)
def test_palettes_alpha_and_single_bits_are_what_is_seen_without_alpha(
    tmp_path: Path, name: str, image: Image.Image, options: dict, expected: np.ndarray
) -> None:
    image.save(tmp_path / name, **options)
    if expected.ndim == 2:
        assert (read(tmp_path / name, 1)[..., 0] == expected).all()
        expected = expected[..., None].repeat(3, axis=-1)
    assert (read(tmp_path / name, 3) == expected).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_become_the_colours_they_were(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "a.tif"
    smooth = Image.fromarray(np.stack([LEVELS * 3 + 30] * 2 + [LEVELS + 60], -1).astype(np.uint8))
    held = lab(smooth) if mode == "LAB" else smooth.convert(mode)
    held.save(file)
    with Image.open(file) as opened:
        assert opened.mode == mode
    away = np.abs(read(file, 3).astype(int) - np.asarray(smooth))
    assert away.max() <= 4
    assert np.abs(read(file, 1)[..., 0].astype(int) - smooth.convert("L")).max() <= 4


def lab(image: Image.Image) -> Image.Image:
    to = ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), to, outputMode="LAB")


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), (level, 0, 0)) for level in (200, 10)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    assert (read(tmp_path / name, 3) == [200, 0, 0]).all()


def test_the_exif_orientation_is_ignored_as_adm_does(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    RGB.save(tmp_path / "a.png", exif=exif)
    assert (read(tmp_path / "a.png", 3) == COLOURS).all()


def test_an_image_that_is_too_thin_is_named_before_it_takes_memory(tmp_path: Path) -> None:
    Image.new("L", (60_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"a\.png .*: 60000×1 pixels are too thin.* 15,360,000"):
        ImageFolder.scan(tmp_path).pixels(0, 256, 3)


def test_an_image_of_more_pixels_than_pillow_allows_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GREY.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ConfigError, match=r"a\.png cannot be read as an image: .*bomb"):
        read(tmp_path / "a.png", 1)


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "its format is unknown"), (b"no image", "its format is unknown")]
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"a\.png cannot be read as an image: {why}"):
        read(tmp_path / "a.png", 1)
