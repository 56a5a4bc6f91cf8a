"""A range makes the values that a list of them would have, and keeps how it was written."""

from __future__ import annotations

import itertools

import pytest

from mpdit.errors import ConfigError
from mpdit.grid.ranges import Range
from tests.helpers.plans import grid_from_text, plan

BASE = "study: s\nbase: {}\n"


def range_of(key: str, text: str) -> Range:
    (axis,) = grid_from_text(f"{BASE}grid: {{{key}: {text}}}").axes
    found = axis.ranges[key]
    assert tuple(choice[key].value for choice in axis.choices) == found.values
    return found


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("train.label_dropout", "{range: [0, 0.4, 0.1]}", (0, 0.1, 0.2, 0.3, 0.4)),
        ("sample.guidance", "{range: [1, 2, 0.5]}", (1, 1.5, 2)),
        ("model.depth", "{range: [8, 2, -3]}", (8, 5, 2)),
        (
            "train.learning_rate",
            "{log: [1e-4, 1e-2], points: 5}",
            (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2),
        ),
        ("train.learning_rate", "{log: [0.01234, 1e-3], points: 2}", (0.01234, 1e-3)),
        ("train.batch_size", "{log: [8, 512], points: 7}", (8, 16, 32, 64, 128, 256, 512)),
        ("train.batch_size", "{log: [10, 1000], points: 4}", (10, 46, 215, 1000)),
        ("train.warmup_steps", "{range: [0, 10, 5]}", (0, 5, 10)),
    ],
)
def test_a_range_has_both_ends_and_exact_values(
    key: str, text: str, values: tuple[float, ...]
) -> None:
    found = range_of(key, text).values
    assert [repr(value) for value in found] == [repr(value) for value in values]


def test_a_range_says_how_it_goes_on() -> None:
    linear = range_of("train.label_dropout", "{range: [0, 0.4, 0.1]}")
    assert (linear.scale, linear.step) == ("linear", 0.1)
    log = range_of("train.learning_rate", "{log: [1e-4, 1e-2], points: 3}")
    assert (log.scale, log.step) == ("log", 10)


def test_a_wider_log_range_with_the_same_steps_keeps_the_points() -> None:
    narrow = range_of("train.learning_rate", "{log: [1e-4, 1e-2], points: 7}").values
    wide = range_of("train.learning_rate", "{log: [1e-5, 1e-1], points: 13}").values
    assert set(narrow) <= set(wide)


def test_a_range_makes_the_runs_of_a_list() -> None:
    listed = "{train.learning_rate: [0.001, 0.01], train: {label_dropout: [0, 0.1]}}"
    ranged = (
        "{train.learning_rate: {log: [1e-3, 1e-2], points: 2},"
        " train: {label_dropout: {range: [0, 0.1, 0.1]}}}"
    )
    for section, text in itertools.product(("grid", "tune", "zip"), (listed, ranged)):
        names = [run.name for run in plan(f"{section}: {text}").runs]
        assert names == [run.name for run in plan(f"{section}: {listed}").runs]


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("model.depth", "{range: [2, 5, 2]}", "steps of 2 from 2 end at 4, not at 5"),
        ("model.depth", "{range: [4, 2, 1]}", "a step of 1 does not lead from 4 to 2"),
        ("model.depth", "{range: [2, 4, 0]}", "a step of 0 does not lead"),
        ("model.depth", "{range: [2, 2, 1]}", "does not lead from 2 to 2"),
        ("model.depth", "{range: [2, 4]}", r"3 numbers, \[first, last, step\], not \[2, 4\]"),
        ("model.depth", "{range: [2, true, 1]}", "should be 3 numbers"),
        ("model.depth", "{range: [1, 1e9, 1]}", "more than 100,000 values"),
        ("model.depth", "{range: [2, 4, 0.5]}", "takes integers, and 2.5 would be a value"),
        ("model.depth", "{log: [2.5, 4], points: 2}", "takes integers, and 2.5"),
        ("model.depth", "{log: [2, 4], points: 4}", "too close: rounded to whole numbers"),
        ("train.label_dropout", "{log: [0.1, 0.1001], points: 4}", "too close: rounded to 3"),
        ("train.label_dropout", "{log: [0, 1], points: 4}", "positive and differ: not 0, 1"),
        ("train.label_dropout", "{log: [1, 1], points: 4}", "positive and differ"),
        ("train.label_dropout", "{log: [0.1, 1], points: 1}", "from 2 to 100,000, not 1"),
        ("train.label_dropout", "{log: [0.1, 1], point: 1}", "Did you mean 'points'"),
        ("train.label_dropout", "{log: [0.1, 1]}", "a range is {range: "),
        ("train.label_dropout", "{}", "a range is {range: "),
        ("model.conditioning", "{range: [1, 2, 1]}", "is not a number"),
    ],
)
def test_what_is_no_range_is_said_with_its_line_and_key(key: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^grid:3: grid\.{key}.*: .*{message}"):
        grid_from_text(f"{BASE}grid:  {{{key}: {text}}}")


def test_a_range_in_place_of_one_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="should be a value, not a mapping"):
        grid_from_text("study: s\nbase: {model.depth: {range: [1, 2, 1]}}")
