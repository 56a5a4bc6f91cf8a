"""Looks and tuning apart: what cannot be meant is one message with its line."""

from __future__ import annotations

import pytest

from mpdit.errors import ConfigError
from tests.helpers.plans import plan

TUNE = "tune: {train.learning_rate: [1e-3, 1e-2], seeds: 2}\n"
CROSSED = "grid: {mp_silu: [false, true], cosine_attention: [false, true]}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: {looks: [5, 3]}", "looks have to grow: write looks: [3, 5]"),
        ("seeds: {looks: [3, 3]}", "looks have to grow: write looks: [3]"),
        ("seeds: {looks: [2, 5]}", "fewer than 3 seeds give no verdict: write looks: [3, 5]"),
        ("seeds: {looks: [3, 4.5]}", "should be numbers of seeds, such as [3, 5, 8]"),
        ("seeds: {looks: []}", "should be numbers of seeds"),
        ("seeds: {lok: [3]}", "unknown key of seeds. Did you mean 'looks'?"),
        ("seeds: {from: 3}", "should have looks, such as {looks: [3, 5, 8]}"),
        ("seeds: {looks: [3], from: -1}", "should be a seed from 0 to 999,999"),
        ("tune: {seeds: 2}", "there is nothing to tune"),
        ("tune: {train.learning_rate: [1e-3], seeds: 0}", "a number of seeds from 1 to 1,000"),
        ("seeds: {looks: [3]}\n" + TUNE.replace(", seeds: 2", ""), "add 'seeds: 2' to tune"),
        ("seeds: [1000000]\n" + TUNE, "seeds from 1,000,000 on are reserved for tuning"),
        ("seeds: {looks: [3]}\n" + CROSSED, "write a number of seeds"),
        (TUNE + "exclude: [{seed: 2}]", "every variant has the same seeds"),
        ("seeds: {looks: 3}", "should be numbers of seeds, such as [3, 5, 8], not 3"),
        ("seeds: {looks: [8, 5, 3]}", "write looks: [3, 5, 8]"),
        ("seeds: {looks: [0, -3]}", "write looks: [3]"),
        ("tune: {train.learning_rat: [1, 2], seeds: 2}", "Did you mean 'train.learning_rate'?"),
        ("tune: {train.learning_rate: 1e-3, seeds: 2}", "should be a list of values, not 0.001"),
        ("tune: {train.learning_rate: [1e-3], seeds: 2}", "one value leaves nothing to choose"),
        (TUNE.replace("1e-2", "1e-3"), "or write train.learning_rate under base"),
        (TUNE.replace("2}", "2.5}"), "a number of seeds from 1 to 1,000, not 2.5"),
        (TUNE.replace("seeds", "seed"), "write 'seeds: 2' in tune"),
    ],
)
def test_a_design_that_makes_no_sense_is_one_message_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"^grid\.yaml:\d+: ") as error:
        plan(text + "\n")
    assert said in str(error.value)


def test_tuning_apart_keeps_the_ids_of_the_compared_runs() -> None:
    before = {run.id for run in plan(TUNE.replace(", seeds: 2", "") + "seeds: 3\n").runs}
    apart = plan(TUNE + "seeds: 3\n").runs
    assert {run.id for run in apart if run.seed < 1_000_000} == before
    looks = plan("variants: {a: {}, b: {mp_silu: true}}\nseeds: {looks: [3, 5]}\n").runs
    listed = plan("variants: {a: {}, b: {mp_silu: true}}\nseeds: 5\n").runs
    assert {run.id for run in looks} == {run.id for run in listed}
