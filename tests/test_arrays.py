"""Which runs share a task and an array, and how many of them run at once."""

from __future__ import annotations

import pytest

from mpdit.study.arrays import Batch, make_batches
from mpdit.study.resources import Resources

HOUR = Resources(time=60)


def names(count: int, prefix: str = "r") -> list[str]:
    return [f"{prefix}{index}" for index in range(count)]


def test_runs_with_equal_resources_are_one_array_in_their_order() -> None:
    large = HOUR.model_copy(update={"memory": "64G"})
    batches = make_batches({"a": HOUR, "b": large, "c": HOUR}, 100)
    assert [batch.tasks for batch in batches] == [(("a",), ("c",)), (("b",),)]


def test_what_only_the_estimate_reads_makes_no_array_of_its_own() -> None:
    priced = HOUR.model_copy(update={"device": "H100", "utilization": 0.4})
    assert len(make_batches({"a": HOUR, "b": priced}, 100)) == 1


def test_arrays_are_no_larger_than_the_cluster_takes() -> None:
    batches = make_batches(dict.fromkeys(names(25), HOUR), 10)
    assert [len(batch.tasks) for batch in batches] == [10, 10, 5]


@pytest.mark.parametrize(
    ("runs_per_job", "in_grid", "asked", "expected"),
    [
        (1, None, None, [100, 100]),
        (1, 10, None, [5, 5]),
        (1, 10, 40, [20, 20]),
        (4, None, 40, [10]),  # ten tasks of four runs
        (1, 1, None, [1, 1]),
    ],
)
def test_so_many_runs_at_once_whatever_the_number_of_arrays(
    runs_per_job: int, in_grid: int | None, asked: int | None, expected: list[int]
) -> None:
    resources = Resources(time=60, runs_per_job=runs_per_job, max_parallel=in_grid)
    batches = make_batches(dict.fromkeys(names(200), resources), 100, asked)
    assert [batch.parallel for batch in batches] == expected


def test_a_short_limit_is_told_early_enough_and_a_long_one_with_time_for_large_checkpoints() -> (
    None
):
    told = {minutes: batch_of(minutes).stop_s for minutes in (1, 10, 60, 1440)}
    assert told == {1: 30, 10: 60, 60: 300, 1440: 300}


def batch_of(minutes: int) -> Batch:
    (batch,) = make_batches({"a": Resources(time=minutes)}, 10)
    return batch


def test_one_process_a_gpu_unless_runs_share_them() -> None:
    shapes = [(None, 1, 1), (4, 1, 4), (2, 8, 1)]
    for gpus, packed, ranks in shapes:
        resources = Resources(time=1, gpus=gpus, runs_per_job=packed)
        (batch,) = make_batches({"a": resources}, 10)
        assert batch.ranks_per_node == ranks
