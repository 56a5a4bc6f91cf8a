"""What evaluation.jsonl says of a run, and that it is said once."""

import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpdit.config import RunConfig
from mpdit.disk import npz
from mpdit.disk.files import append_row, read_rows
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import EXIT_DONE, ConfigError
from mpdit.evaluate import measure_again
from mpdit.evaluation import evaluation as evaluate
from mpdit.evaluation import extractors
from mpdit.evaluation.evaluation import evaluate_run
from mpdit.evaluation.extractors import classifier
from mpdit.evaluation.extractors.extractor import Extractor, Features
from mpdit.runtime.session import Interrupted, Session
from mpdit.sampling.drawing import Drawing
from tests.helpers.images import ADM, bitmaps, grey
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sample sets are noisy real digits instead of a model's; the names of those drawn."""
    names: list[str] = []

    def draw_set(_config: RunConfig, session: Session, drawing: Drawing, _device: object) -> Path:
        file = session.run.samples / f"{drawing.name}.npz"
        if not file.exists():
            names.append(drawing.name)
            file.parent.mkdir(exist_ok=True)
            rng = np.random.default_rng(drawing.seed)
            labels = np.arange(drawing.count) % 10
            images = rng.integers(0, 256, (drawing.count, 8, 8, 1), np.uint8)
            np.savez_compressed(file, arr_0=images, arr_1=labels)
        return file

    monkeypatch.setattr(evaluate, "draw_set", draw_set)
    return names


def a_run(tmp_path: Path, **changes: Any) -> tuple[RunDir, RunConfig]:
    config = tiny_config(**changes)
    run = RunDir(tmp_path / "study" / "run")
    run.write_config(config)
    return run, config


def finished(tmp_path: Path, **changes: Any) -> RunDir:
    run, config = a_run(tmp_path, **changes)
    session = Session(run)
    evaluate_run(config, session, CPU)
    session.end()
    return run


def rows_of(run: RunDir) -> list[dict[str, Any]]:
    return read_rows(run.path / "evaluation.jsonl")


def said(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["role"], row["metric"]) for row in rows]


@pytest.mark.usefixtures("drawn")
def test_a_record_holds_everything_the_number_depends_on(tmp_path: Path) -> None:
    run = finished(tmp_path, sample={"count": 300}, seed=3)
    row = rows_of(run)[0]
    reference = row.pop("reference")
    assert set(reference) == {"data", "split", "count", "hash", "preprocessing"}
    assert (reference["data"], reference["split"], reference["count"]) == ("digits", "train", 1498)
    assert row["metric"] == "FD-digits@300"
    assert row["weights"] == classifier.load("digits", CPU).weights
    assert (row["role"], row["count"], row["training_seed"]) == ("run", 300, 3)
    expected = {"sampler": "ddpm", "steps": 4, "guidance": 1.5, "ema_std": 0.05, "seed": 3}
    assert expected.items() <= row["sampling"].items()


@pytest.mark.usefixtures("drawn")
def test_a_run_has_its_metrics_its_limit_its_repeats_and_the_floor(tmp_path: Path) -> None:
    names = ["inception_score", "precision_recall", "kid", "fd"]
    run = finished(tmp_path, sample={"count": 260}, evaluate={"metrics": names, "repeats": 2})
    labels = ["FD-digits@260", "KD-digits@260", "precision-digits@260", "recall-digits@260"]
    labels.append("IS-digits@260")
    rows = rows_of(run)
    assert said(rows) == [
        *(("run", label) for label in labels),
        ("limit", "FD-digits@inf"),
        *(("floor", label) for label in labels),
        *(("repeat", label) for label in labels),
    ]
    assert rows[0]["value"] != rows[-5]["value"]
    assert rows[0]["sampling"]["seed"] != rows[-5]["sampling"]["seed"]
    floor = rows[6]
    assert floor["value"] < 0.1 * rows[0]["value"]
    assert (floor["images"]["split"], floor["images"]["count"]) == ("test", 260)


@pytest.mark.usefixtures("drawn")
def test_a_run_with_more_samples_than_held_out_images_says_so_of_its_floor(tmp_path: Path) -> None:
    floor = rows_of(finished(tmp_path, sample={"count": 500}))[-1]
    assert (floor["role"], floor["metric"], floor["count"]) == ("floor", "FD-digits@299", 299)


@pytest.mark.usefixtures("drawn")
def test_an_evaluation_that_was_killed_has_no_row_and_the_next_has_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"metrics": ["fd", "kid"], "repeats": 2}
    run, config = a_run(tmp_path, evaluate=wanted)
    session = Session(run)
    measure = evaluate.metrics.measure
    calls = 0

    def stopped_later(*arguments: Any) -> list[dict[str, Any]]:
        nonlocal calls
        calls += 1
        if calls == 5:  # among the rows of the repeat
            session.stop_signal = signal.SIGTERM
        return measure(*arguments)

    monkeypatch.setattr(evaluate.metrics, "measure", stopped_later)
    with pytest.raises(Interrupted):
        evaluate_run(config, session, CPU)
    assert not run.is_done()
    for _ in range(2):
        evaluate_run(config, Session(run), CPU)
    keys = [(*pair, row.get("sampling", {}).get("seed")) for row in rows_of(run)
            for pair in [(row["role"], row["metric"])]]  # fmt: skip
    assert len(keys) == len(set(keys)) == 6


def test_a_sweep_adds_what_is_missing_and_leaves_what_is_there(
    tmp_path: Path, drawn: list[str]
) -> None:
    run = finished(tmp_path)
    before = rows_of(run)
    assert measure_again(run, ema_stds=[0.05, 0.1], guidances=[1.0, 1.5]) == EXIT_DONE
    rows = rows_of(run)
    assert rows[: len(before)] == before
    added = [(row["sampling"]["ema_std"], row["sampling"]["guidance"]) for row in rows[2:]]
    assert added == [(0.05, 1.0), (0.1, 1.0), (0.1, 1.5)]
    assert {row["role"] for row in rows[2:]} == {"sweep"}
    assert len(drawn) == 4
    measure_again(run, ema_stds=[0.05, 0.1], guidances=[1.0, 1.5, 2.0])
    assert rows_of(run)[: len(rows)] == rows
    assert len(rows_of(run)) == len(rows) + 2
    measure_again(run, wanted=["fd", "kid"])
    assert said(rows_of(run)[-2:]) == [("run", "KD-digits@50"), ("floor", "KD-digits@50")]
    assert len(drawn) == 6


def test_earlier_steps_are_measured_like_the_end(tmp_path: Path, drawn: list[str]) -> None:
    run = finished(tmp_path)
    steps = run.config().train.steps
    run.ema.mkdir()
    for step in (12, steps):
        (run.ema / f"std0.050_step{step:08}.safetensors").touch()
    assert measure_again(run, steps=[12, steps]) == EXIT_DONE
    added = rows_of(run)[2:]
    assert [(row["role"], row["sampling"]["snapshot"]) for row in added] == [("sweep", 12)]
    assert drawn[-1] == "samples_at12"
    with pytest.raises(ConfigError, match=r"no EMA snapshots of step 13 .*newest are of --step"):
        measure_again(run, steps=[13])


@pytest.mark.usefixtures("drawn")
def test_a_sweep_leaves_the_runs_own_last_word(tmp_path: Path) -> None:
    run = finished(tmp_path)
    state = run.state()
    measure_again(run, guidances=[2.0])
    assert run.state() == state


def test_a_record_of_an_older_version_is_not_measured_again(
    tmp_path: Path, drawn: list[str]
) -> None:
    run, _ = a_run(tmp_path)
    old = {
        "metric": "FD-digits@50", "value": 3.0, "extractor": "digits", "count": 50,
        "weights": classifier.load("digits", CPU).weights,
        "sampling": {"sampler": "ddpm", "steps": 4, "guidance": 1.5, "ema_std": 0.05, "seed": 0},
    }  # fmt: skip
    append_row(run.path / "evaluation.jsonl", old)
    run.write_state(RunState(stage="done"))
    measure_again(run)
    assert rows_of(run) == [old]
    assert drawn == []


def test_what_was_measured_against_another_reference_is_measured_again_and_that_is_said(
    tmp_path: Path, drawn: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    told = {"name": "folder", "path": str(tmp_path / "one"), "channels": 1, "size": 8, "classes": 1}
    bitmaps(tmp_path / "one", seed=0)
    measured = {"extractor": "digits", "repeats": 2}
    run = finished(tmp_path, data=told, sample={"count": 30}, evaluate=measured)
    before = rows_of(run)
    measure_again(run)
    assert rows_of(run) == before
    assert "another" not in caplog.text
    bitmaps(tmp_path / "one", seed=1)
    measure_again(run)
    rows = rows_of(run)
    assert rows[: len(before)] == before
    assert said(rows[len(before) :]) == said(before)
    assert [role for role, _ in said(before)] == ["run", "floor", "repeat"]
    assert (
        "reference images changed since FD-digits@30 was measured; measuring again" in caplog.text
    )
    hashes = [row["reference"]["hash"] for row in rows]
    assert hashes[: len(before)] == [hashes[0]] * len(before) != hashes[len(before) :]
    measure_again(run)
    assert rows_of(run) == rows
    bitmaps(tmp_path / "one", seed=0)  # as it was: the last rows are those that count
    measure_again(run)
    again = rows_of(run)[len(rows) :]
    assert [row["value"] for row in again] == [row["value"] for row in before]
    assert drawn == ["samples", "repeat1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_stds": [0.5]}, "--ema-std: should be less than 0.28, not 0.5"),
        ({"guidances": [-1.0]}, "--guidance: should be greater than or equal to 0, not -1.0"),
        ({"wanted": ["fid"]}, "--metrics: 'fid' is not one of"),
        ({"count": 0}, "--count: should be greater than 0, not 0"),
        ({"count": 1}, "sample.count: fd needs at least 2 samples"),
        ({}, "is not finished: run it first"),
    ],
)
def test_what_cannot_be_measured_is_one_message(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    run, _ = a_run(tmp_path)
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        measure_again(run, **options)
    assert not (run.path / "evaluation.jsonl").exists()


class Counting(Extractor):
    seen = 0

    def look(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        for batch in batches:
            Counting.seen += len(batch)
            yield from super().look([batch])


@pytest.mark.long
@pytest.mark.usefixtures("drawn")
def test_all_metrics_of_10000_samples_look_at_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = classifier.load("digits", CPU)
    counting = Counting(**vars(shipped))
    monkeypatch.setattr(extractors, "load", lambda *_: counting)
    read, images = list[int](), npz.images

    def counted(file: Path, at_once: int) -> Iterator[np.ndarray]:
        for batch in images(file, at_once):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(npz, "images", counted)
    Counting.seen = 0
    metrics = ["fd", "precision_recall", "inception_score"]  # kid: 100 subsets take seconds
    run, config = a_run(tmp_path, sample={"count": 10_000}, evaluate={"metrics": metrics})
    evaluate_run(config, Session(run), CPU)
    assert Counting.seen == 10_000 + 1498 + 299
    assert (sum(read), max(read)) == (10_000, counting.batch_size)
    (run.path / "evaluation.jsonl").unlink()
    evaluate_run(config, Session(run), CPU)
    assert Counting.seen == 10_000 + 1498 + 299
    assert sum(read) == 10_000


@pytest.mark.usefixtures("drawn")
def test_a_stop_is_heard_between_two_batches_of_real_images(tmp_path: Path) -> None:
    class Stopped(Session):
        def advance(self, step: int, images: float, loss: float | None = None) -> None:
            if (step, self.state.steps) == (500, 1498):
                self.stop_signal = signal.SIGTERM
            super().advance(step, images, loss)

    run, config = a_run(tmp_path)
    session = Stopped(run)
    with pytest.raises(Interrupted):
        evaluate_run(config, session, CPU)
    assert (session.state.stage, session.state.step) == ("evaluate", 500)
    assert not run.is_done()
    evaluate_run(config, Session(run), CPU)
    assert run.is_done()


@pytest.mark.usefixtures("drawn")
def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "file"))
    assert rows_of(finished(tmp_path))[0]["metric"] == "FD-digits@50"


@pytest.mark.usefixtures("drawn")
def test_samples_that_were_drawn_anew_are_looked_at_anew(tmp_path: Path) -> None:
    run = finished(tmp_path)
    first = rows_of(run)[0]["value"]
    (run.path / "evaluation.jsonl").unlink()
    images = np.full((50, 8, 8, 1), 7, np.uint8)
    np.savez_compressed(run.samples / "samples.npz", arr_0=images, arr_1=np.arange(50) % 10)
    evaluate_run(run.config(), Session(run), CPU)
    assert rows_of(run)[0]["value"] != pytest.approx(first)


def test_a_number_from_a_reference_files_images_says_how_many_they_were(
    tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = grey()
    monkeypatch.setattr(extractors, "load", lambda *_: extractor)
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), np.uint8)
    file = tmp_path / ADM
    np.savez(file, arr_0=images, mu=np.zeros(64), sigma=np.eye(64))
    data = {"name": "imagenet128-latents", "path": str(tmp_path)}
    run = finished(tmp_path, data=data, evaluate={"metrics": ["fd", "kid"]})
    told = [(row["reference"]["count"], row["reference"]["preprocessing"]) for row in rows_of(run)]
    assert told == [(None, "the file's own statistics"), (200, extractor.preprocessing)]
    assert drawn == ["samples"]


def test_extractors_compute_in_float32_whatever_the_samples_were_drawn_in(
    tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list[tuple[str, bool]]()
    look = classifier.Classifier.look

    def spied(self: classifier.Classifier, images: torch.Tensor) -> Any:
        matmul = torch.get_float32_matmul_precision()
        found.append((matmul, torch.backends.cudnn.allow_tf32))
        return look(self, images)

    draw_set = evaluate.draw_set

    def fast(*arguments: Any) -> Path:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        return draw_set(*arguments)

    monkeypatch.setattr(evaluate, "draw_set", fast)
    monkeypatch.setattr(classifier.Classifier, "look", spied)
    finished(tmp_path, evaluate={"repeats": 2})
    assert drawn == ["samples", "repeat1"]
    assert set(found) == {("highest", False)}


def test_records_are_plain_json(tmp_path: Path, drawn: list[str]) -> None:
    rows = rows_of(finished(tmp_path, sample={"count": 260}, evaluate={"repeats": 2}))
    assert drawn == ["samples", "repeat1"]
    limit = next(row for row in rows if row["role"] == "limit")
    assert [count for count, _ in limit["points"]] == [260, 130, 65]
    assert limit["standard_error"] > 0
    assert limit["value"] < rows[0]["value"]
    assert json.loads(json.dumps(rows)) == rows
