"""What PyYAML wrote is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError

ODD_TEXTS = [
    *("on", "no", "y", "~", "null", "true", "1:30", "1:30:00", "2001-01-01", "010", "0x1f", "<<"),
    *("1_000", "1e-3", "1e5", ".5", "1.", ".inf", "=", "- a", "a: b", "&a", "*a", "!x", "#", ""),
    *(" a ", "a\nb", "é", "'", '"', "DiT-S/2", "\x85"),
]
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(ODD_TEXTS)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(ODD_TEXTS) | st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(TREES, st.sampled_from([yaml.SafeDumper, getattr(yaml, "CSafeDumper", yaml.SafeDumper)]))
@example([1e-4, 1.0e-04, 1e16, 1e-320, 2.0, float("-inf"), 10**40, ODD_TEXTS], yaml.SafeDumper)
def test_what_was_dumped_is_read_back_as_it_was(tree: Any, dumper: Any) -> None:
    found = parse(yaml.dump(tree, Dumper=dumper, sort_keys=False), dumped=True).tree
    assert repr(found) == repr(tree)  # also types, and the order of keys


def test_lists_that_are_there_twice_are_dumped_as_an_alias_and_read_back() -> None:
    shared = [0.05, 0.1]
    text = yaml.safe_dump({"a": shared, "b": {"c": shared}})
    assert "*id001" in text
    assert parse(text, dumped=True).tree == {"a": shared, "b": {"c": shared}}


@pytest.mark.parametrize("text", ["a: !!int x", "a: 2001-99-99", "a: =", "a: !x b", "? [1]\n: 2"])
def test_what_was_never_dumped_is_one_message(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.yaml:"):
        parse(text, "config.yaml", dumped=True)
