"""A file that is of another run or of other data is refused in one line that says what differs."""

import json
from dataclasses import replace
from typing import Any

import pytest

from mpdit.disk.identity import Identity, parse_mark, same_id
from mpdit.errors import ConfigError
from tests.helpers.tiny import tiny_config


def identity(data: str | None = "a" * 16, **changes: object) -> Identity:
    return Identity.of(tiny_config(**changes), data)


def mark(**changes: object) -> dict[str, Any]:
    """As it comes back from a file."""
    return parse_mark(json.dumps(identity(**changes).mark()))


def test_a_differing_key_is_named_with_both_values() -> None:
    with pytest.raises(ConfigError) as refusal:
        identity(model={"cosine_attention": True}).check(mark(), "x/step_5.pt", "was trained")
    assert str(refusal.value) == (
        "x/step_5.pt was trained with model.cosine_attention=false, config.yaml says true. "
        "Restore config.yaml, or submit the grid again for a new run"
    )


def test_of_many_differing_keys_three_are_named() -> None:
    train = {"batch_size": 16, "adam_betas": [0.8, 0.9], "label_dropout": 0.3}
    with pytest.raises(ConfigError) as refusal:
        identity(seed=3, train=train).check(mark(), "x")
    said = str(refusal.value)
    assert "x was made with seed=0 and train.adam_betas=[0.9, 0.99] and train.batch_size=8," in said
    assert "config.yaml says 3 and [0.8, 0.9] and 16 (1 more keys differ)" in said


def test_other_data_are_refused_and_unknown_ones_are_not() -> None:
    with pytest.raises(ConfigError, match=f"hash {'a' * 16}, but the training data here have bbb"):
        identity(data="b" * 16).check(mark(), "x")
    identity(data=None).check(mark(), "x")
    identity(data="b" * 16).check(mark(data=None), "x")


def test_what_only_says_how_a_run_is_executed_is_no_difference() -> None:
    identity(train={"checkpoint_every": 3}, sample={"batch_size": 1}).check(mark(), "x")


@pytest.mark.parametrize("found", [None, {}])
def test_a_file_without_a_mark_is_accepted(found: dict[str, Any] | None) -> None:
    identity().check(found, "x")


def test_the_id_of_version_01_is_the_beginning_of_todays() -> None:
    own = identity()
    assert same_id(own.run[:8], own.run)
    assert not same_id(own.run[:7] + "x", own.run)
    own.check({**own.mark(), "run": own.run[:8]}, "x")


def test_data_that_nobody_has_read_are_those_of_the_mark() -> None:
    assert identity(data=None).filled(mark()) == identity()
    assert replace(identity(), data="b").filled(mark()).data == "b"


@pytest.mark.parametrize("text", [None, b"", b"\0\0", b"\x80", b"null", b"[1]", "{"])
def test_damaged_metadata_is_no_mark(text: str | bytes | None) -> None:
    assert parse_mark(text) == {}
