import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpdit.config import DataConfig
from mpdit.data import datasets
from mpdit.data.images import ImageReader
from mpdit.errors import ConfigError


def fashion(path: Path) -> DataConfig:
    return DataConfig(name="fashion-mnist", path=str(path))


def write_idx(file: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def small_fashion(tmp_path: Path) -> Path:
    for images, labels in datasets.FASHION_FILES.values():
        write_idx(tmp_path / images, np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256)
        write_idx(tmp_path / labels, np.array([4, 0, 9]))
    return tmp_path


def test_digits_are_split_without_overlap_and_lie_between_minus_one_and_one() -> None:
    train = datasets.load(DataConfig(name="digits"), "train")
    test = datasets.load(DataConfig(name="digits"), "test")
    assert len(train.labels) + len(test.labels) == 1797
    assert train.pixels.min() == -1
    assert train.pixels.max() == 1
    assert set(train.labels) == set(test.labels) == set(range(10))


def test_pixels_survive_the_way_to_eight_bits_and_are_rounded_not_truncated() -> None:
    levels = np.arange(256, dtype=np.float32) / 127.5 - 1
    pixels = levels.reshape(1, 1, 16, 16)
    assert (datasets.to_uint8(pixels)[0, :, :, 0].ravel() == np.arange(256)).all()
    nearly_white = np.full((1, 1, 1, 1), 0.999, np.float32)
    assert datasets.to_uint8(nearly_white).item() == 255


def test_fashion_is_read_from_plain_and_compressed_idx_files(small_fashion: Path) -> None:
    plain = datasets.load(fashion(small_fashion), "train")
    for file in small_fashion.iterdir():
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = datasets.load(fashion(small_fashion), "train")
    assert plain.pixels.shape == (3, 1, 28, 28)
    assert plain.labels.tolist() == [4, 0, 9]
    assert plain.hash == packed.hash


def test_a_path_may_begin_with_the_home_folder(
    small_fashion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(small_fashion.parent))
    data = DataConfig(name="fashion-mnist", path=f"~/{small_fashion.name}")
    datasets.check_available(data)
    assert datasets.place(data) == small_fashion


def test_missing_fashion_says_which_file_where_and_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dataset-fashion-mnist") as caught:
        datasets.check_available(fashion(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "train-images-idx3-ubyte" in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"\0\0\x08", b"not idx at all", b"\0\0\x08\x03\0\0\0\x09", b"\0\0\x08\xff"),
        b"\0\0\x08\x03" + struct.pack(">III", 3, 28, 28) + b"too few",
        b"\0\0\x08\x03" + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1),
    ],
)
def test_a_damaged_file_is_named(small_fashion: Path, damage: bytes) -> None:
    file = small_fashion / "train-images-idx3-ubyte"
    file.write_bytes(damage)
    with pytest.raises(ConfigError, match="train-images-idx3-ubyte is damaged"):
        datasets.load(fashion(small_fashion), "train")


IMAGES, LABELS = datasets.FASHION_FILES["test"]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (LABELS, [4, 0, 200], f"{LABELS}: image 2 has label 200, but there are 10 classes"),
        (LABELS, [4, 0, 9, 1], f"{LABELS} holds 4 labels, but .*{IMAGES} 3 images"),
        (LABELS, [[4, 0, 9]], f"{LABELS} holds 1×3 labels"),
        (IMAGES, np.zeros((3, 32, 32)), f"{IMAGES} holds 3×32×32 bytes, not N×28×28"),
        (IMAGES, np.zeros((0, 28, 28)), f"{IMAGES} holds no images"),
        (IMAGES, np.zeros(28), f"{IMAGES} holds 28 bytes"),
    ],
)
def test_files_of_the_test_split_too_are_looked_at_before_anything_is_trained(
    small_fashion: Path, name: str, array: object, message: str
) -> None:
    datasets.check_available(fashion(small_fashion))
    write_idx(small_fashion / name, np.asarray(array))
    with pytest.raises(ConfigError, match=message):
        datasets.check_available(fashion(small_fashion))


@pytest.mark.parametrize("at", [0, 40, -5])
def test_a_compressed_file_with_a_changed_byte_is_damaged(small_fashion: Path, at: int) -> None:
    file = small_fashion / IMAGES
    packed = bytearray(gzip.compress(file.read_bytes()))
    packed[at] ^= 0xFF
    file.unlink()
    file.with_name(f"{IMAGES}.gz").write_bytes(packed)
    with pytest.raises(ConfigError, match=rf"{IMAGES}\.gz is damaged"):
        datasets.check_available(fashion(small_fashion))


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((3, 1, 8, 8), np.float32), np.array([0, 1, -1]), "labels go from -1 to 1, but"),
        (np.zeros((3, 1, 8, 8), np.float32), np.array([0, 1, 10]), "labels go from 0 to 10, but"),
        (np.zeros((3, 1, 8, 8), np.float32), np.array([0, 1, 0.7]), "labels are float64 .3,., not"),
        (np.zeros((0, 1, 8, 8), np.float32), np.zeros(0, np.int64), "labels are int64 .0,., not"),
        (np.zeros((3, 1, 9, 9), np.float32), np.arange(3), "not float32 .3, 1, 8, 8"),
        (np.full((3, 1, 8, 8), np.nan, np.float32), np.arange(3), "pixels are not all in"),
    ],
)
def test_what_a_data_set_gives_is_held_against_its_row(
    pixels: np.ndarray, labels: np.ndarray, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load_digits", lambda _data, _split: (pixels, labels))
    with pytest.raises(ConfigError, match=f"the test split of digits: .*{message}"):
        datasets.load(DataConfig(name="digits"), "test")


@pytest.mark.skipif(not datasets.FASHION_DEFAULT.exists(), reason="dataset-fashion-mnist is absent")
def test_the_real_fashion_mnist_is_whole() -> None:
    images = datasets.load(DataConfig(name="fashion-mnist"), "test")
    assert images.pixels.shape == (10_000, 1, 28, 28)
    assert np.bincount(images.labels).tolist() == [1000] * 10


def pictures(path: Path, **shape: int) -> DataConfig:
    return DataConfig(name="folder", path=str(path), **{"size": 4, "classes": 2} | shape)


@pytest.fixture
def small_folder(tmp_path: Path) -> Path:
    """Two classes of 20 grey images of one level each: 10 × number + class."""
    for label, name in enumerate(("bee", "wasp")):
        (tmp_path / name).mkdir()
        for number in range(20):
            Image.new("L", (9, 6), 10 * number + label).save(tmp_path / name / f"{number:02}.png")
    (tmp_path / ".thumbnails").mkdir()
    return tmp_path


def test_an_image_folder_is_split_by_name_and_read_as_grey_or_colour(small_folder: Path) -> None:
    folder = datasets.image_folder(pictures(small_folder, channels=1))
    train, test = folder.split("train"), folder.split("test")
    grey = ImageReader(test, size=4, channels=1).read(range(4))
    assert grey[:, 0, 0, 0].tolist() == [90, 190, 91, 191]
    assert (len(train.labels), test.labels.tolist()) == (36, [0, 0, 1, 1])
    assert ImageReader(test, size=4, channels=3).read([2, 0]).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"channels": 1, "classes": 3}, "holds images of 2 classes, but the run is configured"),
        ({"channels": 4}, "images have 1 or 3 channels, not 4"),
    ],
)
def test_a_folder_of_another_shape_is_refused(
    small_folder: Path, shape: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        datasets.check_available(pictures(small_folder, **shape))


def test_data_without_a_path_is_looked_for_under_mpdit_data(
    small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(small_folder, channels=1).model_copy(update={"path": None})
    monkeypatch.delenv("MPDIT_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"data\.path: folder: set it to a folder of images"):
        datasets.check_available(data)
    monkeypatch.setenv("MPDIT_DATA", str(small_folder.parent))
    small_folder.rename(small_folder.parent / "folder")
    datasets.check_available(data)
    latents = DataConfig(name="imagenet128-latents")
    with pytest.raises(ConfigError, match=r"data encode IMAGES .*/imagenet128"):
        datasets.check_available(latents)


def test_whether_data_is_there_can_be_asked_without_torch() -> None:
    code = "import sys, mpdit.data.datasets, mpdit.data.latents; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
