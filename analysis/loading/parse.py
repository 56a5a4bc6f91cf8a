"""A run's larger files as Arrow tables: metrics.jsonl, magnitudes.jsonl, config.yaml."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.json

from analysis.loading.cache import Kind, Piece
from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError

BLOCK = 4 << 20
"""Bytes that one thread parses at a time."""


def json_lines(texts: list[bytes], schema: pa.Schema) -> list[Piece | None]:
    """Each file's whole rows: the schema's columns, then any others of numbers, as float64.

    A torn last line is not a row. A file is damaged where another line is not a JSON object, or
    lacks a column that is not nullable. All files are parsed as one, which is what makes it fast;
    where that fails, each half is.
    """
    return _json_lines([text[: text.rfind(b"\n") + 1] for text in texts], schema)


def _json_lines(texts: list[bytes], schema: pa.Schema) -> list[Piece | None]:
    counts = [text.count(b"\n") for text in texts]
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


def _table(text: bytes, schema: pa.Schema) -> pa.Table | None:
    if not text.startswith(b"{") or text.count(b"\n{") + 1 < text.count(b"\n"):
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
    """Each file's content as JSON: libyaml takes as long for a config as Arrow for its metrics."""
    found: list[str | None] = []
    for text in texts:
        try:
            found.append(json.dumps(parse(text.decode(), dumped=True).tree))
        except (ConfigError, UnicodeDecodeError, TypeError):
            found.append(None)
    table = pa.table({"tree": [tree for tree in found if tree is not None]}, TREE)
    starts = iter(range(len(table)))
    return [None if tree is None else Piece(table, next(starts), 1) for tree in found]


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
