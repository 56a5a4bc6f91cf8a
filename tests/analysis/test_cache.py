"""What is kept of a study's files is what is in them now."""

import json
import math
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from analysis.loading import cache, parse
from analysis.loading.load import load
from mpdit.disk import stamp
from mpdit.disk.files import append_row, keep_rows, read_rows
from mpdit.disk.rundir import RunDir

Own = Callable[..., Path]
KINDS = ("METRICS", "MAGNITUDES", "CONFIGS")


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a study is, and however recently it was written."""
    monkeypatch.setattr(stamp, "SETTLED", -1e9)
    for name in KINDS:
        monkeypatch.setattr(parse, name, replace(getattr(parse, name), worth_keeping=0))


def stores(folder: Path) -> list[Path]:
    return sorted((folder / "analysis").glob("*.arrow"))


def opened(store: Path) -> Mapping[str, tuple[cache.Stamp, cache.Piece]]:
    [kind] = [
        kind
        for kind in (getattr(parse, name) for name in KINDS)
        if store.stem.endswith(f"-{Path(kind.name).stem}")
    ]
    return cache._open(store, kind)


def metrics(path: Path) -> pd.DataFrame:
    return load(path).metrics


def expected(path: Path) -> list[tuple[str, int, float]]:
    """Run, step and loss as the standard library reads them."""
    return [
        (run["name"], row["step"], row["loss"])
        for run in json.loads((path / "study.json").read_text())["runs"]
        for row in read_rows(path / run["name"] / "metrics.jsonl")
    ]


def found(path: Path) -> list[tuple[str, int, float]]:
    return list(load(path).metrics[["run", "step", "loss"]].itertuples(index=False, name=None))


@pytest.mark.usefixtures("keeping")
def test_what_has_not_changed_is_not_parsed_again(
    own: Own, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own()
    before = load(path)
    assert len(stores(cache_folder)) == 3

    def refuse(texts: list[bytes]) -> list[None]:
        assert texts == []
        return []

    for name in KINDS:
        monkeypatch.setattr(parse, name, replace(getattr(parse, name), parse=refuse))
    after = load(path)
    for frame in ("runs", "metrics", "magnitudes", "evaluations", "provenance", "missing"):
        pd.testing.assert_frame_equal(getattr(after, frame), getattr(before, frame))
    assert found(path) == expected(path)


def change_append(file: Path, _: random.Random) -> None:
    append_row(file, {"step": 9999, "loss": 1.5})


def change_append_torn(file: Path, _: random.Random) -> None:
    with file.open("a") as handle:
        handle.write('{"step": 10000, "lo')


def change_replace(file: Path, _: random.Random) -> None:
    keep_rows(file, read_rows(file)[:-3])


def change_in_place_with_its_old_time(file: Path, noise: random.Random) -> None:
    """The same size, inode and time of modification: as a restored backup may have."""
    stat = file.stat()
    rows = read_rows(file)
    if rows:
        text = json.dumps({"step": rows[0]["step"], "loss": round(noise.random(), 3)})
        first, _, rest = file.read_text().partition("\n")
        if len(text) <= len(first):
            file.write_text(text.ljust(len(first)) + "\n" + rest)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def change_truncate(file: Path, _: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change_swap(file: Path, noise: random.Random) -> None:
    other = noise.choice(sorted(file.parent.parent.glob("*/metrics.jsonl")))
    aside = file.with_name("aside")
    file.rename(aside)
    if other.exists():
        other.rename(file)
    aside.rename(other)


def change_remove(file: Path, _: random.Random) -> None:
    file.unlink()


CHANGES = [value for name, value in sorted(globals().items()) if name.startswith("change_")]


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_file_is_read_again(
    own: Own, change: Callable[[Path, random.Random], None]
) -> None:
    path = own()
    assert found(path) == expected(path)
    before = expected(path)
    file = sorted(path.glob("*/metrics.jsonl"))[3]
    change(file, random.Random(5))
    assert found(path) == expected(path)
    assert (expected(path) == before) == (change is change_append_torn)


@pytest.mark.usefixtures("keeping")
def test_after_any_changes_the_rows_are_those_on_disk(own: Own) -> None:
    path = own()
    noise = random.Random(0)
    for _ in range(25):
        for _ in range(noise.randrange(3)):
            files = sorted(path.glob("*/metrics.jsonl"))
            noise.choice(CHANGES)(noise.choice(files), noise)
        if noise.random() < 0.2:
            listing = json.loads((path / "study.json").read_text())
            noise.shuffle(listing["runs"])
            (path / "study.json").write_text(json.dumps(listing))
        assert found(path) == expected(path)
    assert len(expected(path)) > 100


@pytest.mark.usefixtures("keeping")
def test_a_run_that_is_begun_anew_leaves_nothing_behind(own: Own) -> None:
    path = own(seeds=1)
    load(path)
    run = RunDir(next(path.glob("A-none*")))
    config = run.config()
    shutil.rmtree(run.path)
    run.write_config(config.model_copy(update={"seed": 7}))
    study = load(path)
    assert (study.metrics["run"] == run.name).sum() == 0
    assert study.runs["seed"].iloc[0] == 7  # of the new config.yaml
    assert study.runs["state"].iloc[0] == "planned"


def test_what_has_just_been_written_is_not_kept(
    own: Own, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KINDS:
        monkeypatch.setattr(parse, name, replace(getattr(parse, name), worth_keeping=0))
    monkeypatch.setattr(stamp, "SETTLED", 1e9)  # whatever time the test takes
    path = own(seeds=1)
    load(path)
    assert all(found(path) for _ in range(2))
    for store in stores(cache_folder):
        assert opened(store) == {}
    monkeypatch.setattr(stamp, "SETTLED", -1e9)
    load(path)
    [store] = [store for store in stores(cache_folder) if store.stem.endswith("metrics")]
    assert len(opened(store)) == 7


def test_a_small_study_leaves_nothing_in_the_cache(
    own: Own, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamp, "SETTLED", -1e9)
    path = own()
    files = sorted(path.rglob("*"))
    load(path)
    assert stores(cache_folder) == []
    assert sorted(path.rglob("*")) == files


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("spoil", [b"", b"ARROW1\0\0", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_cache_costs_time_only(own: Own, cache_folder: Path, spoil: bytes | None) -> None:
    path = own()
    load(path)
    for store in stores(cache_folder):
        whole = store.read_bytes()
        store.write_bytes(whole[: len(whole) // 2] if spoil is None else spoil)
    assert found(path) == expected(path)
    for store in stores(cache_folder):
        assert opened(store)


@pytest.mark.usefixtures("keeping")
def test_where_nothing_can_be_kept_loading_works(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("MPDIT_CACHE", str(in_the_way))
    path = own()
    assert found(path) == expected(path)


def test_numbers_are_the_ones_python_reads() -> None:
    values = [0.1, 1e-05, 5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf, 3, None]
    noise = random.Random(0)
    values += [noise.random() * 10 ** noise.randrange(-300, 300) for _ in range(500)]
    text = "".join(json.dumps({"step": i, "loss": v}) + "\n" for i, v in enumerate(values))
    [piece] = parse.METRICS.parse([text.encode()])
    assert piece is not None
    read = piece.table["loss"].to_pylist()
    for value, number in zip(values, read, strict=True):
        assert number == value or (value is not None and math.isnan(value) and math.isnan(number))


def test_one_damaged_file_of_many_costs_only_itself() -> None:
    good = b'{"step": 1, "loss": 2.0}\n'
    bad = [
        b"\0\0\n",
        b"[]\n",
        b"null\n",  # alone, Arrow crashes
        good + b"null\n",
        b"3\n",
        b'"x"\n',
        b"[" * 200_000 + b"\n",
        b'{"loss": 1.0}\n',
        b'{"step": 1.5}\n',
        b'{"step": 1, "loss": "x"}\n',
    ]
    bad += [b'{"step": 1\n' + good]
    for damaged in bad:
        texts = [good] * 11
        texts[7] = damaged
        pieces = parse.METRICS.parse(texts)
        assert [index for index, piece in enumerate(pieces) if piece is None] == [7], damaged


def test_what_is_logged_beyond_the_schema_has_a_column(own: Own) -> None:
    path = own(seeds=1)
    run = next(path.glob("E-all_s0*"))
    append_row(run / "metrics.jsonl", {"step": 2000, "loss": 1.0, "tokens": 5, "note": "x"})
    frame = load(path).metrics
    assert list(frame["tokens"].dropna()) == [5.0]
    assert "note" not in frame


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("changed", ["version", "schema"])
def test_what_another_parser_made_is_parsed_again(
    own: Own, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    path = own(seeds=1)
    load(path)
    assert all(map(opened, stores(cache_folder)))
    other: dict[str, object] = {"version": "another"}
    if changed == "schema":
        fields = [field.with_type(pa.float32()) for field in parse.METRICS.schema]
        other = {"schema": pa.schema(fields)}
    monkeypatch.setattr(parse, "METRICS", replace(parse.METRICS, **other))
    [store] = [store for store in stores(cache_folder) if store.stem.endswith("metrics")]
    assert opened(store) == {}
