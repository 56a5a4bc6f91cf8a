"""The hash of the training data is of their content, wherever they lie, and is cheap to ask for."""

from pathlib import Path

import pytest
from PIL import Image

from mpdit.config import DataConfig
from mpdit.data import content, datasets
from mpdit.data.content import content_hash
from mpdit.disk import stamp
from tests.helpers.images import bitmaps, folder_data
from tests.helpers.latents import make_store


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))


def two_classes(folder: Path, *names: str) -> DataConfig:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(3):
            Image.new("L", (8, 8), 10 * number + image).save(folder / name / f"{image}.png")
    told = {**folder_data(folder).model_dump(), "classes": len(names)}
    return DataConfig.model_validate(told)


def test_images_in_memory_have_the_hash_of_their_train_split() -> None:
    digits = DataConfig(name="digits")
    assert content_hash(digits) == datasets.load(digits, "train").hash


def test_a_folder_has_the_hash_of_its_images_wherever_it_lies(tmp_path: Path) -> None:
    one, two = bitmaps(tmp_path / "one", seed=0), bitmaps(tmp_path / "two", seed=0)
    assert content_hash(one) == content_hash(two)
    assert len(content_hash(one)) == 16


def test_pixels_that_are_replaced_under_their_names_are_other_data(tmp_path: Path) -> None:
    data = bitmaps(tmp_path / "one", seed=0)
    before = content_hash(data)
    bitmaps(tmp_path / "one", seed=1)
    assert content_hash(data) != before


def test_a_class_folder_of_another_name_is_other_data(tmp_path: Path) -> None:
    data = two_classes(tmp_path / "one", "a", "b")
    before = content_hash(data)
    (tmp_path / "one" / "a").rename(tmp_path / "one" / "c")  # the labels change places
    assert content_hash(data) != before


def test_a_folder_that_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bitmaps(tmp_path / "one", seed=0)
    monkeypatch.setattr(stamp, "SETTLED", -1.0)
    before = content_hash(data)
    monkeypatch.setattr(content, "checksum", lambda file: pytest.fail(f"{file} is read"))
    assert content_hash(data) == before


def test_a_folder_that_is_being_read_can_be_left(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        content_hash(bitmaps(tmp_path / "one", seed=0), stop)


def test_a_store_has_the_hash_of_its_manifest(tmp_path: Path) -> None:
    one, two = make_store(tmp_path / "one", 20), make_store(tmp_path / "two", 21)
    shape = {"name": "latents", "channels": 4, "size": 8, "classes": 3}
    hashes = {content_hash(DataConfig(path=str(path), **shape)) for path in (one, two)}
    assert len(hashes) == 2
