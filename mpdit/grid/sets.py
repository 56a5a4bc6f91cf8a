"""The texts of ``--set``: settings of every run, of the study, and resources."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mpdit.disk.yamlfile import YamlText, parse_value
from mpdit.errors import ConfigError, nearest
from mpdit.grid.resources import Resources, read_resources
from mpdit.grid.settings import Layer, Setting, fold, read_layer

STUDY_KEYS = ("seeds", "fraction", "metric", "margin")
"""Keys beside a grid's base that ``--set`` can change."""
_SLURM = re.compile(r"(?:(?:ladder|variants|leave_one_out)\.(.+)\.)?slurm(?:\.(.+))?")


@dataclass(frozen=True)
class Sets:
    """The texts of ``--set``, read.

    Attributes:
        layer: settings of every run.
        study: values of `STUDY_KEYS`.
        slurm: (a variant's name or None, resources).
    """

    layer: Layer
    study: Mapping[str, Setting]
    slurm: tuple[tuple[str | None, Setting], ...]

    def over(self, resources: Resources, variant: str | None = None) -> Resources:
        """The resources, overridden by those for all runs, and then by those for this variant.

        Raises:
            ConfigError: as `read_resources`.
        """
        names = (None,) if variant is None else (None, variant)
        nodes = [node for name in names for other, node in self.slurm if other == name]
        return read_resources(resources, *nodes)

    def check_variants(self, known: Collection[str]) -> None:
        """Raise ConfigError where resources are set for a variant that does not exist."""
        for name, node in self.slurm:
            if name is not None and name not in known:
                raise node._replace(where=()).error(
                    f"there is no variant {name!r:.80}.{nearest(name, known)}"
                )


def read_sets(texts: Sequence[str]) -> Sets:
    """Read ``key=value`` texts. A key is dotted, as in a grid.

    Raises:
        ConfigError: for a text without a key, and for a value that a grid would refuse.
    """
    layers: list[Layer] = []
    study: dict[str, Setting] = {}
    slurm: list[tuple[str | None, Setting]] = []
    for text in texts:
        key, equals, value = text.partition("=")
        name, key = f"--set {text}", key.strip()
        if not equals or not key:
            raise ConfigError(f"{name}: write --set key=value, such as --set train.steps=100")
        source = parse_value(value, name)
        if key in STUDY_KEYS:
            study[key] = Setting(source.tree, source, ())
        elif match := _SLURM.fullmatch(key):
            tree = source.tree
            for part in reversed(match[2].split(".", 1) if match[2] else ()):
                tree = {part: tree}
            slurm.append((match[1], Setting(tree, source, ("slurm",))))
        else:
            whole = YamlText(name, {key: source.tree}, {(): 0})
            layers.append(read_layer(whole, (), whole.tree))
    return Sets(fold(layers), study, tuple(slurm))
