"""A name means one thing: modules, public classes, and what the command line may import.

Which room may import which is held by the contracts in pyproject.toml (``lint-imports``).
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

SAME_NOUN = {"evaluation", "grid", "study"}
"""grid/grid.py and evaluation/evaluation.py are the nouns of their packages; analysis/study.py is
what mpdit/study/ left."""
LEFTOVER_CLASSES: set[str] = set()
"""Still to be renamed."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    """(name, tree) of each module; a package goes by its folder's name."""
    for package in ("mpdit", "analysis"):
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.parent.name if file.stem == "__init__" else file.stem
            yield name, ast.parse(file.read_text())


def test_no_two_modules_share_a_name() -> None:
    names = [name for name, _ in sources() if name != "__main__"]
    assert {name for name in names if names.count(name) > 1} == SAME_NOUN


def test_no_two_public_classes_share_a_name() -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for module, tree in sources():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(module)
    shared = {name: found for name, found in modules.items() if len(found) > 1}
    assert shared.keys() == LEFTOVER_CLASSES, shared


def test_the_commands_on_a_study_import_no_science() -> None:
    tree = ast.parse((ROOT / "mpdit" / "study" / "actions.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {module for module in imported if module and module.startswith("mpdit.")}
    assert {module.split(".")[1] for module in ours} <= {"disk", "errors", "text", "grid", "study"}
