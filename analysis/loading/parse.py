"""Parse a run's larger files to Arrow tables: metrics.jsonl, magnitudes.jsonl, config.yaml."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json

from analysis.loading.cache import Kind, Piece
from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError

NEWLINE, BRACE = b"\n{"
BLOCK = 4 << 20
"""Bytes that one thread parses at a time."""


def json_lines(texts: list[bytes], schema: pa.Schema) -> list[Piece | None]:
    """Return each file's complete rows; None for a damaged file.

    The columns are the schema's, then any other numeric columns as float64. An incomplete last line
    is ignored. A file is damaged if another line is not a JSON object, or lacks a column that is
    not nullable. For speed, all files are parsed as one. If that fails, each half is parsed.
    """
    return _json_lines([text[: text.rfind(b"\n") + 1] for text in texts], schema)


def _json_lines(texts: list[bytes], schema: pa.Schema) -> list[Piece | None]:
    counts = [_lines(text) for text in texts]
    if not any(counts):
        return [Piece(schema.empty_table(), 0, 0)] * len(texts)
    table = _table(b"".join(texts), schema)
    if table is not None and table.num_rows == sum(counts):
        ends = accumulate(counts)
        return [Piece(table, end - count, count) for count, end in zip(counts, ends, strict=True)]
    if len(texts) == 1:
        return [None]
    half = len(texts) // 2
    return _json_lines(texts[:half], schema) + _json_lines(texts[half:], schema)


def _lines(text: bytes) -> int:
    return int(
        np.count_nonzero(np.frombuffer(text, np.uint8) == NEWLINE)
    )  # count() takes ten times as long


def _table(text: bytes, schema: pa.Schema) -> pa.Table | None:
    characters = np.frombuffer(text, np.uint8)
    first = characters[1:][characters[:-1] == NEWLINE]  # of each line but the first
    if not text.startswith(b"{") or (first != BRACE).any():
        return None  # null alone in a line makes Arrow crash
    try:
        table = pa.json.read_json(
            pa.BufferReader(text),
            read_options=pa.json.ReadOptions(block_size=BLOCK),
            parse_options=pa.json.ParseOptions(explicit_schema=schema),
        )
    except pa.ArrowInvalid:
        return None
    if any(table[field.name].null_count for field in schema if not field.nullable):
        return None
    extra = [
        field.with_type(pa.float64())
        for field in table.schema
        if field.name not in schema.names and _is_number(field.type)
    ]
    whole = pa.schema([*schema, *extra])
    return table.select(whole.names).cast(whole)


def _is_number(kind: pa.DataType) -> bool:
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    return bool(is_number)


def yaml_trees(texts: list[bytes]) -> list[Piece | None]:
    """Return each file's content as JSON, which is cached because parsing YAML is slow."""
    found: list[str | None] = []
    for text in texts:
        try:
            found.append(_as_json(text.decode()))
        except (ConfigError, UnicodeDecodeError, TypeError):
            found.append(None)
    table = pa.table({"tree": [tree for tree in found if tree is not None]}, TREE)
    starts = iter(range(len(table)))
    return [None if tree is None else Piece(table, next(starts), 1) for tree in found]


def _as_json(text: str) -> str:
    """Return a config as JSON. Sections that runs of a study share are parsed once."""
    sections = [section for section in _SECTION.split(text) if section]
    with suppress(ConfigError, TypeError):
        parsed = [_section(section) for section in sections]
        keys = [key for of_section, _ in parsed for key in of_section]
        if len(keys) == len(set(keys)):
            return "{" + ", ".join(inner for _, inner in parsed) + "}"
    return json.dumps(parse(text, dumped=True).tree)  # or the error of the whole


_SECTION = re.compile(r"^(?=[A-Za-z_])", re.MULTILINE)
"""Before each key of the top level, as ``yaml.safe_dump`` writes them."""


@lru_cache(maxsize=4096)
def _section(text: str) -> tuple[tuple[str, ...], str]:
    """Return a section's keys, and its content as JSON without the braces.

    Raises:
        ConfigError: when it is not YAML by itself.
        TypeError: when it is not a mapping.
    """
    tree = parse(text, dumped=True).tree
    if not isinstance(tree, dict) or not tree:
        raise TypeError("not a mapping")
    return tuple(map(str, tree)), json.dumps(tree)[1:-1]


STEP = pa.field("step", pa.int64(), nullable=False)
MEASURES = ("loss", "mse", "vlb", "grad_norm", "learning_rate", "images_per_s", "memory_mb")
_METRICS = pa.schema([STEP, *((name, pa.float64()) for name in (*MEASURES, "seconds", "mfu"))])
_BLOCKS = pa.list_(pa.float64())
_MAGNITUDES = pa.schema(
    [
        STEP,
        pa.field("site", pa.string(), nullable=False),
        pa.field("blocks", _BLOCKS, nullable=False),
    ]
)
TREE = pa.schema([("tree", pa.string())])
_VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

METRICS = Kind(
    "metrics.jsonl", _METRICS, partial(json_lines, schema=_METRICS), 16_000_000, _VERSION
)
MAGNITUDES = Kind(
    "magnitudes.jsonl", _MAGNITUDES, partial(json_lines, schema=_MAGNITUDES), 16_000_000, _VERSION
)
CONFIGS = Kind("config.yaml", TREE, yaml_trees, 200_000, _VERSION)
