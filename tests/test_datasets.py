import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from mpdit.config import ConfigError, DataConfig
from mpdit.data import datasets


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


def test_missing_fashion_says_which_file_where_and_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dataset-fashion-mnist") as caught:
        datasets.check_available(fashion(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "train-images-idx3-ubyte" in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"not idx at all", b"\0\0\x08\x03\0\0\0\x09"])
def test_a_damaged_file_is_named(small_fashion: Path, damage: bytes) -> None:
    file = small_fashion / "train-images-idx3-ubyte"
    file.write_bytes(damage)
    with pytest.raises(ConfigError, match="train-images-idx3-ubyte is damaged"):
        datasets.load(fashion(small_fashion), "train")


@pytest.mark.skipif(not datasets.FASHION_DEFAULT.exists(), reason="dataset-fashion-mnist is absent")
def test_the_real_fashion_mnist_is_whole() -> None:
    images = datasets.load(DataConfig(name="fashion-mnist"), "test")
    assert images.pixels.shape == (10_000, 1, 28, 28)
    assert np.bincount(images.labels).tolist() == [1000] * 10
