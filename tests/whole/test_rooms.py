"""The tests lie as the rooms of the package do, and share only what is in tests/helpers."""

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

TESTS = ROOT / "tests"
MODULES = sorted(TESTS.rglob("test_*.py"))
ROOMS = {path.parent.name for path in (ROOT / "mpdit").glob("*/*.py")}
OTHERS = {"analysis", "slurm", "whole"}
"""The other package, a real cluster, and what crosses rooms: commands, pages and notebooks."""


def test_every_room_has_its_folder_of_tests_and_no_test_lies_elsewhere() -> None:
    assert {path.relative_to(TESTS).parts[0] for path in MODULES} == ROOMS | OTHERS


def imported(file: Path) -> set[str]:
    """The parts of the dotted names that a file imports, and from which it imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
    return {part for name in names for part in name.split(".")}


@pytest.mark.parametrize(
    "file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS))
)
def test_no_file_imports_a_test_module_or_a_conftest(file: Path) -> None:
    assert imported(file).isdisjoint({"conftest", *(module.stem for module in MODULES)})
