"""A row says everything about its thing, and what is not in a table is an error."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from mpdit.catalogue import DATASETS, FLAGS, PAPERS_FLAGS, PARTS, TABLES, Registry
from mpdit.catalogue.flags import Flag, code_of
from mpdit.catalogue.parts import MODES, in_order
from mpdit.config import make_run
from mpdit.errors import ConfigError
from mpdit.modelconfig import PRESETS, ModelConfig

TREE = {
    "model": {"depth": 1, "width": 16, "heads": 2, "patch_size": 4},
    "data": "digits",
    "train": {"steps": 10},
}


def test_reading_every_table_imports_no_torch() -> None:
    check = "import sys, mpdit.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_that_has_code_has_it_where_it_says(table) -> None:
    loaded = [row.load() for row in table.values() if row.implementation is not None]
    assert all(map(callable, loaded))


def test_the_papers_flags_are_fields_and_the_first_rows() -> None:
    assert tuple(FLAGS)[:8] == PAPERS_FLAGS
    assert set(ModelConfig.model_fields) >= set(PAPERS_FLAGS)
    assert len({code_of(flag) for flag in FLAGS}) == len(FLAGS)


def test_a_preset_holds_the_papers_flags_and_none_that_come_later() -> None:
    assert {key for key, value in PRESETS["mods"].items() if value is True and key in FLAGS} == set(
        PAPERS_FLAGS
    )


def test_parts_are_applied_in_one_order_with_the_gate_last() -> None:
    assert in_order(set(PARTS)) == ("scale", "shift", "rotation", "blended_shift", "gate")
    assert all(parts == in_order(set(parts)) for parts in MODES.values())


@pytest.mark.parametrize(
    ("section", "key", "wrong", "right"),
    [
        ("data", "name", "digitz", "digits"),
        ("sample", "solver", "ddpn", "ddpm"),
        ("train", "objective", "epsilom", "epsilon"),
        ("evaluate", "extractor", "inceptoin", "inception"),
        ("evaluate", "metrics", ["kit"], "kid"),
        ("model", "conditioning", "rotatoin", "rotation"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_known_one(
    section: str, key: str, wrong: object, right: str
) -> None:
    own = TREE.get(section, {})
    tree = {**TREE, section: {**(own if isinstance(own, dict) else {}), key: wrong}}
    with pytest.raises(ConfigError, match=rf"^{section}\.{key}: .*Did you mean '{right}'"):
        make_run(tree)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "two rows of one table: the flag 'mp_silu'"),
        ({"name": "new"}, "the flag 'new': the code 'silu' is taken by 'mp_silu'"),
        ({"name": "new", "code": "new", "needs": {"mp_sillu": ""}}, "Did you mean 'mp_silu'"),
    ],
)
def test_a_row_that_repeats_or_misspells_another_is_one_message(
    changes: dict[str, Any], said: str
) -> None:
    rows = [FLAGS[name] for name in PAPERS_FLAGS]
    with pytest.raises(ConfigError, match=said):
        Registry("flag", Flag, "model", [*rows, replace(FLAGS["mp_silu"], **changes)])


@pytest.mark.parametrize("code", ["mpdit.model.layerz:apply", "mpdit.model.layers:aply"])
def test_code_that_is_not_where_its_row_says_is_one_message(code: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot load {code}: "):
        replace(FLAGS["mp_silu"], implementation=code).load()


def test_what_a_data_set_lacks_is_said_by_its_own_row() -> None:
    free = [name for name, row in DATASETS.items() if row.shape is None]
    assert free == ["latents", "folder"]
    for name in free:
        with pytest.raises(ConfigError, match="needs channels, size and classes"):
            make_run({**TREE, "data": {"name": name}})
