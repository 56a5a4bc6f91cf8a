"""Whatever is written: a product of its axes less its exclusions, or one clear error."""

from __future__ import annotations

import itertools
import math
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError
from tests.helpers.plans import BASE, plan, refusal

AXES: dict[str, list[Any]] = {
    **{flag: [False, True] for flag in PAPERS_FLAGS if flag != "forced_weight_normalization"},
    "model.depth": [1, 2, 3],
    "model.conditioning": ["adaln", "rotation", "rotation_scale", "rotation+scale", "scale+gate"],
    "train.learning_rate": [1e-4, 3e-4, 1e-3],
    "train.steps": [10, 20],
    "sample.guidance": [1, 1.5],
}


@st.composite
def products(draw: st.DrawFn) -> dict[str, Any]:
    """A grid of some axes, each in ``grid``, ``zip`` or ``tune``, some seeds, one exclusion."""
    keys = draw(st.lists(st.sampled_from(list(AXES)), unique=True, max_size=4))
    tree: dict[str, Any] = {"grid": {}, "tune": {}, "zip": []}
    for key in keys:
        values = AXES[key][: draw(st.integers(1, len(AXES[key])))]
        section = draw(st.sampled_from(["grid", "zip", "tune"]))
        if section == "zip":
            tree["zip"].append({key: values})
        else:
            tree[section][key] = values
    tree["seeds"] = draw(st.integers(1, 3))
    if keys:
        excluded = draw(st.lists(st.sampled_from(keys), unique=True, max_size=2))
        condition = {key: draw(st.sampled_from(AXES[key])) for key in excluded}
        tree["exclude"] = [condition] if condition else []
    return tree


@settings(deadline=None)
@given(products())
def test_there_are_as_many_runs_as_the_product_less_what_is_excluded(tree: dict[str, Any]) -> None:
    axes: dict[str, list[Any]] = tree["grid"] | tree["tune"]
    for zipped in tree["zip"]:
        axes |= zipped
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    left = [
        point
        for point in points
        if not any(
            all(point[key] == value for key, value in condition.items())
            for condition in tree.get("exclude", [])
        )
    ]
    text = yaml.safe_dump(tree)
    if not left:
        assert "every combination is excluded" in refusal(text)
        return
    made = plan(text)
    assert len(made.runs) == len(left) * tree["seeds"]
    assert made.grid.points == math.prod(map(len, axes.values())) * tree["seeds"]
    assert sum(excluded.runs for excluded in made.excluded) == made.grid.points - len(made.runs)
    assert len({run.name for run in made.runs}) == len(made.runs)
    tuned = {(run.variant, str(run.tune), run.seed) for run in made.runs}
    assert len(tuned) == len(made.runs)


WORDS = st.sampled_from(
    [
        *("study", "base", "grid", "ladder", "variants", "leave_one_out", "zip", "exclude", "tune"),
        *("seeds", "slurm", "from", "variant", "reason", "model", "data", "train", "sample"),
        *(
            "model.name",
            "DiT-S/2",
            "digits",
            "mp_silu",
            "train.steps",
            "time",
            "extra",
            "A",
            "",
            "~",
        ),
        *("1e-3", "400_000", "1:30", "on", "true", "null", "-1", ".inf", "9" * 40, "!!set", "&a"),
        *("*a", "<<", "? x", "| y", "\t", "'", '"', "{", "}", "[", "]", ":", "-", "#", "\x00"),
    ]
)
TREES = st.recursive(
    WORDS | st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


def survives(text: str) -> None:
    try:
        made = plan(text, base="")
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - a plan is as good
    else:
        assert made.runs


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_no_text_causes_anything_but_a_plan_or_one_clear_error(text: str) -> None:
    survives(text)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS | st.sampled_from([" ", "\n", ": ", "\n  ", ", "]), max_size=40).map("".join))
def test_no_sequence_of_the_languages_words_does_either(text: str) -> None:
    survives(text)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([BASE, "study: s\n"]), st.dictionaries(WORDS, TREES, max_size=4))
def test_no_tree_under_a_right_beginning_does_either(text: str, tree: dict[str, Any]) -> None:
    taken = grid_keys(text)
    tree = {key: value for key, value in tree.items() if key not in taken}
    survives(text + (yaml.safe_dump(tree, allow_unicode=True) if tree else ""))


def grid_keys(text: str) -> set[str]:
    return set(parse(text).tree)
