"""The floor: real held-out images in the place of samples, with labels drawn as theirs."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpdit.data.datasets import images_by_class
from mpdit.evaluation import references
from mpdit.evaluation.extractors import classifier
from mpdit.evaluation.realimages import Batch, like
from mpdit.sampling.drawing import Drawing, labels
from tests.helpers.images import CPU, folder_data
from tests.helpers.tiny import tiny_config

UNEVEN = np.repeat(np.arange(4), (50, 20, 10, 0))
GREY = 80
"""The grey level of class 1; that of class 2 is twice as bright."""


def counts(wanted: np.ndarray) -> list[int]:
    rows = like(UNEVEN, wanted)
    assert len(set(rows.tolist())) == len(rows)
    return np.bincount(UNEVEN[rows], minlength=3).tolist()


def test_held_out_images_have_the_samples_labels_while_there_are_images_of_each_class() -> None:
    assert counts(np.resize([0, 1, 2], 24)) == [8, 8, 8]
    assert counts(np.resize([0, 1, 2], 240)) == [11, 11, 10]
    assert counts(np.resize([0, 1, 2, 3], 16)) == [4, 4, 4]  # there is none of class 3
    assert counts(np.array([3, 3])) == [0, 0, 0]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes of 200, 40 and 100 images, a tenth of them for testing."""
    root = tmp_path_factory.mktemp("uneven")
    for label, number in enumerate((200, 40, 100)):
        (root / "abc"[label]).mkdir()
        for image in range(number):
            file = root / "abc"[label] / f"{image:03}.png"
            Image.new("L", (8, 8), GREY * label).save(file)
    return root


@pytest.mark.parametrize("count", [9, 100])
@pytest.mark.parametrize("how", ["data", "even", "uniform"])
def test_the_floor_is_drawn_as_the_samples_are(
    uneven: Path, how: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = folder_data(uneven, classes=3)
    sample = {"labels": how, "count": count}
    config = tiny_config(data=data.model_dump(), sample=sample, evaluate={"extractor": "digits"})
    drawing = replace(Drawing.of_run(config), images=images_by_class(data))
    seen: list[int] = []

    def watch(batches: Iterable[Batch], _: int) -> Iterator[Batch]:
        for batch in batches:
            seen.extend((batch[:, 0, 0, 0] // GREY).tolist())
            yield batch

    held = references.held_out(data, drawing, classifier.load("digits", CPU), watch)
    assert held is not None
    assert held.record["count"] == len(held.features.pooled) == len(seen)
    found = np.bincount(seen, minlength=3).tolist()
    if how == "data":
        assert found == {9: [6, 1, 2], 100: [20, 4, 10]}[count]
        return
    assert found == np.bincount(labels(drawing)[: len(seen)], minlength=3).tolist()
    assert held.record["labels"] == how
    few = count == 100
    assert (len(seen) < count) == few
    assert any(f"{len(seen)} images for {count}" in text for text in caplog.messages) == few
    if few:
        assert found[1] == 4  # all that there are of the rarest class
