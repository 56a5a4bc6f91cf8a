"""The named variants of a grid: ladder steps, variants and left-out sets, in the file's order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpdit.catalogue import FLAGS
from mpdit.errors import nearest
from mpdit.grid.names import check_name
from mpdit.grid.resources import Resources, read_resources
from mpdit.grid.settings import Layer, Setting, fold, read_layer
from mpdit.modelconfig import ModelConfig

NAMED = ("ladder", "variants", "leave_one_out")
"""The keys of a grid that hold named variants."""


def _is_switch(key: str) -> bool:
    """Whether a key can be turned on by its name alone."""
    name = key.removeprefix("model.")
    field = ModelConfig.model_fields.get(name)
    return name in FLAGS or (field is not None and field.annotation is bool)


@dataclass(frozen=True)
class Named:
    """Named settings that override the base's."""

    name: str
    layer: Layer
    resources: Resources


def read_variants(top: Setting, resources: Resources) -> list[Named]:
    """Read every named variant of a grid; each may override ``resources``, the study's.

    Raises:
        ConfigError: with the line of what is wrong.
    """
    nodes: dict[str, Setting] = {}
    known: dict[str, Named] = {}
    for section in (key for key in top.value if key in NAMED):
        for node, name, made in _entries(section, top.child(section), resources):
            check_name(node._replace(value=name), "a variant")
            if name in nodes:
                raise node.error(f"the name {name!r} is taken (line {nodes[name].line})")
            nodes[name] = node
            if made is not None:
                known[name] = made
    for name in nodes:
        _resolve(name, nodes, known, resources)
    return [known[name] for name in nodes]


def _entries(
    section: str, node: Setting, resources: Resources
) -> Iterator[tuple[Setting, str, Named | None]]:
    """(where, name, variant) of one section; no variant yet where it may start from another."""
    if section == "leave_one_out":
        yield from _leave_one_out(node, resources)
        return
    if not isinstance(node.value, dict) or not node.value:
        raise node.error("should be a mapping of names to settings")
    step = Named("", {}, resources)
    for name in node.value:
        child = node.child(name)
        if section == "variants":
            yield child, name, None
        elif isinstance(child.value, dict) and "from" in child.value:
            raise child.child("from").error("a ladder step starts from the one before it")
        else:
            step = _over(step, name, child)
            yield child, name, step


def _resolve(
    name: str, nodes: dict[str, Setting], known: dict[str, Named], resources: Resources
) -> None:
    """Resolve the variant ``name``, after the one that it starts ``from``, and so on."""
    chain: list[str] = []
    origin: Named | None = None
    while origin is None:
        if name in known:
            origin = known[name]
        elif name in chain:
            raise nodes[name].error(f"circular 'from': {' → '.join((*chain, name))}")
        else:
            chain.append(name)
            node = nodes[name]
            start = node.get("from") if isinstance(node.value, dict) else None
            if start is None:
                origin = Named("", {}, resources)
            elif not isinstance(start.value, str) or start.value not in nodes:
                hint = nearest(str(start.value), nodes)
                raise start.error(f"there is no variant {start.value!r:.80}.{hint}")
            else:
                name = start.value
    for link in reversed(chain):
        origin = known[link] = _over(origin, link, nodes[link])


def _over(origin: Named, name: str, node: Setting) -> Named:
    """``origin``, overridden by the settings and resources at ``node``."""
    layer = read_layer(node.source, node.where, node.value, ("slurm", "from"))
    resources = origin.resources
    if isinstance(node.value, dict) and "slurm" in node.value:
        resources = read_resources(resources, node.child("slurm"))
    return Named(name, fold((origin.layer, layer)), resources)


def _leave_one_out(node: Setting, resources: Resources) -> Iterator[tuple[Setting, str, Named]]:
    """``full``, then ``no-KEY`` for each KEY: the full set, with KEY as in the base."""
    full = _full_set(node)
    yield node, "full", Named("full", full, resources)
    names = [key.partition(".")[2] for key in full]
    for (key, setting), name in zip(full.items(), names, strict=True):
        rest = {other: value for other, value in full.items() if other != key}
        unique = f"no-{name if names.count(name) == 1 else key}"
        yield setting, unique, Named(unique, rest, resources)


def _full_set(node: Setting) -> Layer:
    full: Layer = {}
    if isinstance(node.value, list):
        for child in map(node.child, range(len(node.value))):
            one = read_layer(node.source, child.where, {str(child.value): True})
            if not all(map(_is_switch, one)):
                raise child.error(f"{child.value!r} is not a flag; give it a value, in a mapping")
            if one.keys() & full.keys():
                raise child.error(f"{child.value!r} is listed twice")
            full |= {key: child._replace(value=True) for key in one}
    else:
        full = read_layer(node.source, node.where, node.value)
    if not full:
        raise node.error("should be a list of flags, or a mapping of keys to values")
    return full
