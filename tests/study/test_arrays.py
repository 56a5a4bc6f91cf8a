"""Which runs share a task and an array, and how many of them run at once."""

from __future__ import annotations

import pytest

from mpdit.errors import ConfigError
from mpdit.grid.resources import Resources
from mpdit.study.cluster.arrays import Batch, make_batches

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
    ],
)
def test_so_many_runs_at_once_whatever_the_number_of_arrays(
    runs_per_job: int, in_grid: int | None, asked: int | None, expected: list[int]
) -> None:
    resources = Resources(time=60, runs_per_job=runs_per_job, max_parallel=in_grid)
    batches = make_batches(dict.fromkeys(names(200), resources), 100, asked)
    assert [batch.parallel for batch in batches] == expected


def most_at_once(batches: list[Batch]) -> int:
    """Runs, when every array begins as soon as the one before it has ended."""
    lane: dict[int, int] = {}
    widest: dict[int, int] = {}
    for index, batch in enumerate(batches):
        lane[index] = index if batch.after is None else lane[batch.after]
        runs = batch.parallel * batch.resources.runs_per_job
        widest[lane[index]] = max(runs, widest.get(lane[index], 0))
    return sum(widest.values())


@pytest.mark.parametrize(
    ("groups", "packed", "limit"), [(20, 1, 8), (2, 1, 1), (3, 4, 5), (30, 2, 7), (1, 3, 3)]
)
def test_no_more_runs_at_once_than_the_limit_however_many_arrays_there_are(
    groups: int, packed: int, limit: int
) -> None:
    runs = {
        f"{minutes}-{run}": Resources(time=minutes, runs_per_job=packed)
        for minutes in range(1, groups + 1)
        for run in range(25)
    }
    batches = make_batches(runs, 10, limit)
    assert sum(len(task) for batch in batches for task in batch.tasks) == 25 * groups
    assert all(batch.parallel >= 1 for batch in batches)
    assert packed <= most_at_once(batches) <= limit


def test_a_small_array_beside_a_large_one_leaves_no_place_empty() -> None:
    alone = HOUR.model_copy(update={"memory": "64G"})
    batches = make_batches(dict.fromkeys(names(1000), HOUR) | {"large": alone}, 1000, 8)
    assert [(batch.parallel, batch.after) for batch in batches] == [(7, None), (1, None)]


def test_few_runs_that_could_share_a_job_with_more_are_held_against_the_limit_as_they_are() -> None:
    four = Resources(time=60, runs_per_job=4)
    (batch,) = make_batches(dict.fromkeys(names(2), four), 10, 2)
    assert (batch.tasks, batch.parallel) == ((("r0", "r1"),), 1)


def test_the_grids_own_limits_hold_for_each_of_its_parts() -> None:
    one, two = (Resources(time=60, nodes=n, max_parallel=n) for n in (1, 2))
    runs = dict.fromkeys(names(40), one) | dict.fromkeys(names(40, "other"), two)
    batches = make_batches(runs, 10)
    parts = [[batch for batch in batches if batch.resources == own] for own in (one, two)]
    assert [batch.after for batch in parts[0]] == [None, 0, 1, 2]
    assert [batch.after for batch in parts[1]] == [None, None, 4, 5]
    assert {batch.parallel for batch in batches} == {1}


@pytest.mark.parametrize(("asked", "in_grid"), [(3, None), (None, 3)])
def test_fewer_runs_at_once_than_share_a_job_are_refused(
    asked: int | None, in_grid: int | None
) -> None:
    four = Resources(time=60, runs_per_job=4, max_parallel=in_grid)
    with pytest.raises(ConfigError, match="4 runs share a job, so the limit cannot be 3"):
        make_batches(dict.fromkeys(names(8), four), 10, asked)


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
