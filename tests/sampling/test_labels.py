"""Labels are drawn as the config says, the same whatever their number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mpdit.data.datasets import images_by_class
from mpdit.disk import npz
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.runtime.session import Session
from mpdit.sampling.drawing import Drawing, labels
from mpdit.sampling.sampler import draw_set
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")


def of_images(how: str, images: tuple[int, ...] | None, count: int = 8) -> Drawing:
    own = Drawing.of_run(tiny_config(sample={"labels": how, "count": count}))
    classes = tuple(range(len(images or range(10))))
    return replace(own, images=images, classes=classes)


@pytest.mark.parametrize("how", ["data", "even"])
def test_labels_take_turns_where_classes_have_as_many_images(how: str) -> None:
    drawing = replace(of_images(how, (4,) * 10, 5), classes=(5, 1, 7))
    assert labels(drawing).tolist() == [5, 1, 7, 5, 1]


@pytest.mark.parametrize("images", [(90, 10), (1, 2, 3, 4), (500, 1, 0, 37, 37, 12), (7, 0, 7)])
def test_labels_follow_the_proportions_of_the_train_split(images: tuple[int, ...]) -> None:
    total = sum(images)
    drawn = labels(of_images("data", images, total))
    assert np.bincount(drawn, minlength=len(images)).tolist() == list(images)
    for count in (1, 2, 5, 10, total // 2):
        first = labels(of_images("data", images, count))
        assert first.tolist() == drawn[:count].tolist()
        part = np.bincount(first, minlength=len(images))
        assert np.abs(part - count * np.array(images) / total).max() < 1


@pytest.mark.parametrize("how", ["data", "even", "uniform"])
def test_a_class_without_images_is_never_drawn(how: str) -> None:
    drawn = labels(of_images(how, (3, 0, 2, 0, 9), 500))
    assert set(drawn.tolist()) == {0, 2, 4}
    nothing = replace(of_images(how, (3, 0, 2)), classes=(1,))
    with pytest.raises(ConfigError, match="no image of class 1"):
        labels(nothing)


def test_uniform_labels_are_independent_of_their_number_and_as_likely() -> None:
    drawn = labels(of_images("uniform", (1, 99, 50), 30_000))
    assert np.abs(np.bincount(drawn) / 30_000 - 1 / 3).max() < 0.01
    for count in (1, 7, 1000):
        assert labels(of_images("uniform", (1, 99, 50), count)).tolist() == drawn[:count].tolist()


def test_a_run_is_sampled_in_the_proportions_of_its_train_split(run: RunDir) -> None:
    images = images_by_class(run.config().data)
    assert run.config().sample.labels == "data"
    config = run.config()
    file = draw_set(config, Session(run, recorded=False), Drawing.of_run(config), CPU)
    found = npz.labels(file)
    expected = labels(replace(Drawing.of_run(run.config()), images=images))
    assert found.tolist() == expected.tolist()
