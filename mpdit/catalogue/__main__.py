"""Every key and every name as Markdown (docs/catalogue.md): ``mpdit catalogue [EXTENSION …]``."""

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tabulate import tabulate

from mpdit import extensions
from mpdit.catalogue import DATASETS, PAPERS_FLAGS, TABLES
from mpdit.catalogue.switches import switches
from mpdit.commandline.door import door
from mpdit.config import SECTIONS
from mpdit.flops import count_parameters, forward_flops, muon_flops
from mpdit.grid.exclusions import yaml_text
from mpdit.grid.keys import AFTER, GRID_KEYS, GridKey
from mpdit.grid.resources import TAKES, Resources
from mpdit.modelconfig import PRESETS, SIZES, ModelConfig
from mpdit.section import Added, How, Later

HEAD = """\
# Configuration

Every key that a grid can set, and every name that a key can take. `mpdit catalogue`
writes this page from the package's own tables. [adding.md](adding.md) explains how to add a row,
and [the grid language](../experiments/README.md) how the keys combine.

A key can be written nested (`train: {steps: 10}`), dotted (`train.steps: 10`) and, for flags, by
its name alone (`mp_silu: true`). *In the id* shows whether a key is part of a run's identity: if it
is, another value makes another run. *Since* is the version that added the key; older runs keep
their ids. `null` means no value in YAML.
"""
INPUT_ONLY = {
    "model": (
        (
            "name",
            f"`DiT-S/2`: a size ({', '.join(SIZES)}) and a patch size",
            "Sets depth, width, heads and patch_size; each can also be set on its own.",
        ),
        (
            "preset",
            ", ".join(f"`{name}`" for name in PRESETS),
            "Sets the options of a generation of the official code; each can also be set on its "
            "own.",
        ),
    )
}
"""Section → (key, its values, its meaning) of the keys that are resolved into others."""
_TABLES = {
    table.key: f"[{table.kind}](#{table.kind.replace(' ', '-')}s)"
    for table in TABLES.values()
    if table.key
}
"""A key that takes names of a table → a link to it."""
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
COSTS = """\
## What each switch costs

Changes against DiT-S/2 on latents 4×16×16 with 1000 classes, which has 32,843,520 parameters and
needs 2,818 MFLOPs per forward pass of one image (matrix products only). Training costs three
forward passes per image. Muon's own FLOPs do not depend on the batch.
`python benchmarks/switches.py` times each switch.
"""
ALIGN = ("left", "left", "right", "right", "right")
COLUMNS = {
    "name": "name",
    "code": "in run names",
    "labels": "labels",
    "unset": "unset",
    "does": "what it does",
    "needs": "needs",
    "source": "source",
}
"""A row's field → its heading; a table has a column for each field in its rows."""


ENVIRONMENT = {
    "MPDIT_DATA": "The folder of all data sets: `data.path` is `$MPDIT_DATA/NAME` unless set",
    "MPDIT_CACHE": "The folder of caches, `~/.cache/mpdit` if not set; deleting it only costs time",
    "MPDIT_INCEPTION": "The file of Inception's weights, as `evaluate.inception`",
    "MPDIT_DINOV2": "The file of DINOv2's weights, as `evaluate.dinov2`",
    "MPDIT_VAE": "The folder of a VAE's weights, if the hub cannot be reached",
    "MPDIT_THREADS": "CPU threads of a run's first start; a resumed run uses the same number",
    "MPDIT_BACKEND": "`gloo` instead of NCCL, so that processes can share one GPU, for a test",
    "MPDIT_STUDY": "Set for the command of `--on-end`: the study's folder",
    "MPDIT_SUMMARY": "Set for the command of `--on-end`: one line that counts the runs' states",
}
"""Environment variable → its meaning."""


def page() -> str:
    """Return the page: keys of a grid, of ``slurm:`` and of a config, names, variables."""
    parts = [HEAD, "## Keys of a grid\n", _table(map(_grid_row, GRID_KEYS))]
    parts += ["## `slurm`\n", _table(_rows(Resources))]
    for name, section in SECTIONS.items():
        parts += [f"## `{name}`\n", f"{_paragraph(section)}\n", _table(_rows(section, name))]
    for table in TABLES.values():
        rows = [
            {head: _text(getattr(row, key)) for key, head in COLUMNS.items() if hasattr(row, key)}
            for row in table.values()
        ]
        note = f" ({table.note})" if table.note and table.key else table.note
        key = f"`{table.key}`" if table.key else ""
        parts += [f"## {table.kind.capitalize()}s\n", f"Key: {key}{note}\n", _table(rows)]
    variables = [{"variable": f"`{name}`", "meaning": does} for name, does in ENVIRONMENT.items()]
    parts += [costs(), "## Environment variables\n", _table(variables)]
    return "\n".join(parts)


def costs() -> str:
    """Return the table of parameters and FLOPs that each switch adds to a model."""
    data = DATASETS["imagenet128-latents"].shape
    assert data is not None
    rows = []
    for switch in switches():
        if switch.samples:
            continue
        on, off = (
            ModelConfig.model_validate({"name": "DiT-S/2", **tree.get("model", {})})
            for tree in (switch.on, switch.off)
        )
        numbers = [sum(count_parameters(model, data).values()) for model in (on, off)]
        flops = [forward_flops(model, data) for model in (on, off)]
        muon = muon_flops(on) if switch.on.get("train", {}).get("optimizer") == "muon" else 0
        rows.append(
            {
                "switch": switch.name,
                "compared with": switch.against or "defaults",
                "parameters": _change(numbers[0] - numbers[1], ",d"),
                "MFLOPs per forward pass": _change((flops[0] - flops[1]) / 1e6, ",.2f"),
                "optimizer MFLOPs per step": _change(muon / 1e6, ",.2f"),
            }
        )
    table = tabulate(rows, "keys", "github", disable_numparse=True, colalign=ALIGN)
    return f"{COSTS}\n{table}\n"


def _change(value: float, form: str) -> str:
    return format(value, f"+{form}").replace("-", "−") if value else "0"


def _table(rows: Iterable[dict[str, str]]) -> str:
    cells = [{head: text.replace("|", "\\|") for head, text in row.items()} for row in rows]
    return f"{tabulate(cells, 'keys', 'github', disable_numparse=True)}\n"


def _grid_row(key: GridKey) -> dict[str, str]:
    return {
        "key": f"`{key.name}`",
        "meaning": key.does,
        "takes": key.takes,
        "default": key.default,
        "since": key.since,
    }


def _rows(kind: type[BaseModel], section: str = "") -> Iterator[dict[str, str]]:
    """Yield a row per field, except for the paper's flags, which have their own table."""
    meanings = field_docs(kind)
    schema = kind.model_json_schema()["properties"]
    prefix = f"{section}." if section else ""
    for name, takes, meaning in INPUT_ONLY.get(section, ()):
        yield _row(prefix + name, takes, "", meaning, "0.1", "no" if section else "")
    for name, field in kind.model_fields.items():
        if name in PAPERS_FLAGS:
            continue
        marks = {type(mark) for mark in field.metadata}
        default = "required" if field.is_required() else f"`{yaml_text(field.default)}`"
        since = AFTER if marks & {Later, Added} else "0.1"
        own = ("no" if How in marks else "yes") if section else ""
        takes = _TABLES.get(prefix + name) or _takes(schema[name])
        yield _row(prefix + name, takes, default, meanings[name], since, own)


def _row(key: str, takes: str, default: str, meaning: str, since: str, own: str) -> dict[str, str]:
    row = {"key": f"`{key}`", "meaning": meaning, "takes": takes, "default": default}
    return row | {"since": since} | ({"in the id": own} if own else {})


def _takes(schema: dict[str, Any]) -> str:
    """Describe the values that a field takes, from its JSON schema."""
    for one in schema.get("anyOf", ()):
        if one.get("type") != "null":
            return _takes(one)
    if TAKES in schema:
        return str(schema[TAKES])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            bounds = [f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if key in schema]
            return " ".join((kind, ", ".join(bounds))).strip()
        case "array" if "prefixItems" in schema:
            items = schema["prefixItems"]
            return f"{len(items)} × {_takes(items[0])}"
        case "array":
            return f"list of {_takes(schema['items'])}"
        case "object":
            return "mapping"
        case "string":
            return "text"
        case _:
            return "a file or folder"


def field_docs(kind: type[BaseModel]) -> dict[str, str]:
    """Return field → the docstring below it in the source, on one line, for fields with one."""
    [body] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in pairwise(body.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(str(words))):
                found[name] = " ".join(words.replace("``", "`").replace("None", "`null`").split())
    return found


def _paragraph(kind: type[BaseModel]) -> str:
    """Return a section's docstring with each paragraph on one line."""
    text = inspect.getdoc(kind) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.replace("``", "`").split("\n\n"))


def _text(value: str | Iterable[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def print_page(files: Sequence[Path]) -> None:
    """``mpdit catalogue``: print the tables, with the rows of these files."""
    for file in files:
        extensions.load(file)
    print(page(), end="")


def main() -> int:
    return door(sys.argv[1:], "mpdit.catalogue", "catalogue")


if __name__ == "__main__":
    sys.exit(main())
