"""A tool has each row of a run once, in one run of its own, and never stops the run."""

from __future__ import annotations

import json
import logging
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mpdit.config import RunConfig, read_run
from mpdit.disk.files import append_row, keep_rows, read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE, ConfigError
from mpdit.run import execute
from mpdit.runtime import tracking
from mpdit.runtime.tracking import Tracker, named_scores, tracked
from mpdit.study.submission import Execution, submit
from mpdit.trackers import ToolName
from tests.helpers.plans import plan
from tests.helpers.tiny import make, tiny_config

SCORES = [
    {"metric": "FD-digits@8", "value": 3.0, "role": "run"},
    {"metric": "FD-digits@8", "value": 4.0, "role": "repeat"},
    {"metric": "FD-digits@8", "value": 1.0, "role": "floor"},
    {"metric": "FD-digits@8", "value": 9.0, "role": "sweep"},
]
NAMED = {
    "evaluation/FD-digits@8": 3.0,
    "evaluation/FD-digits@8 repeat 1": 4.0,
    "evaluation/FD-digits@8 floor": 1.0,
}
Points = dict[str, list[tuple[int, float]]]
"""Name → (step, value), as a tool has them."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def of_tensorboard(run: RunDir, _id: str) -> Points:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def wandb_records(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after seven bytes."""
    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def of_wandb(run: RunDir, id: str) -> Points:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    points: Points = {}
    for file in sorted(run.path.glob(f"wandb/offline-run-*-{id}/run-{id}.wandb")):
        for content in wandb_records(file):
            record = Record()
            record.ParseFromString(content)
            items = {
                item.key or item.nested_key[0]: json.loads(item.value_json)
                for item in record.history.item
            }
            for name in items.keys() - {"_step", "_timestamp", "_runtime"}:
                points.setdefault(name, []).append((items["_step"], items[name]))
            for item in record.summary.update:
                if (name := item.key or item.nested_key[0]).startswith("evaluation/"):
                    told = run.config().train.steps, json.loads(item.value_json)
                    points.setdefault(name, []).append(told)
    return points


def of_mlflow(run: RunDir, id: str) -> Points:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient((run.path.parent / "mlruns").as_uri())
    told = client.get_run(id).data
    assert told.params["model.width"] == str(run.config().model.width)
    names = {name.replace("@", "-"): name for name in NAMED} | {"loss": "loss"}
    return {
        names[name]: [(one.step, one.value) for one in client.get_metric_history(id, name)]
        for name in told.metrics
    }


def start(
    run: RunDir, tool: ToolName, step: int, losses: Mapping[int, float], scores: bool = False
) -> str:
    """Train from a step on; return the tool's id of the run."""
    config = run.config()
    config = config.model_copy(update={"train": config.train.model_copy(update={"track": tool})})
    file = run.path / "metrics.jsonl"
    keep_rows(file, [row for row in read_rows(file) if row["step"] <= step])
    with tracked(run, config, main=True) as tracker:
        tracker.begin(step)
        for at, loss in losses.items():
            row = {"step": at, "loss": loss, "vlb": float("nan")}
            append_row(file, row)
            tracker.row(row)
        if scores:
            tracker.scores(SCORES)
    return str(json.loads((run.path / "track.json").read_text())["id"])


@pytest.mark.parametrize(
    ("tool", "read"),
    [("tensorboard", of_tensorboard), ("wandb", of_wandb), ("mlflow", of_mlflow)],
)
def test_a_resumed_run_continues_the_tools_run_and_sends_no_step_twice(
    tmp_path: Path, tool: ToolName, read: Callable[[RunDir, str], Points]
) -> None:
    pytest.importorskip(tool)
    run = make(tmp_path / "study" / "A_s0-0123456789ab")
    first = start(run, tool, 0, {5: 5.0, 10: 10.0, 15: 15.0})
    again = start(run, tool, 10, {15: 15.0, 20: 20.0}, scores=True)
    assert again == first
    last = run.config().train.steps
    once_more = start(run, tool, last, {}, scores=True)
    points = read(run, once_more)
    assert points.pop("loss") == [(step, float(step)) for step in (5, 10, 15, 20)]
    assert points == {name: [(last, value)] for name, value in NAMED.items()}


class Broken:
    """A tool that loses its server."""

    id = "x"
    taken: list[int] = []  # noqa: RUF012

    def __init__(self, *_: Any) -> None:
        pass

    def send(self, values: Mapping[str, float], step: int) -> None:
        if self.taken or not values:
            raise OSError("no route to host")
        self.taken.append(step)

    conclude = send

    def close(self) -> None:
        raise OSError("no route to host")


def test_a_tool_that_fails_is_reported_once_and_gets_the_rest_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make(tmp_path / "run")
    monkeypatch.setitem(tracking.TOOLS, "tensorboard", Broken)
    with caplog.at_level(logging.WARNING, "mpdit"):
        start(run, "tensorboard", 0, {5: 5.0, 10: 10.0, 15: 15.0}, scores=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(read_rows(run.path / "metrics.jsonl")) == 3
    sent: list[int] = []
    monkeypatch.setattr(Broken, "send", lambda _self, _values, step: sent.append(step))
    start(run, "tensorboard", 15, {20: 20.0})
    assert sent == [10, 15, 20]


def test_a_server_that_does_not_answer_never_fails_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        run = make(tmp_path / "run")
        with caplog.at_level(logging.WARNING, "mpdit"), tracked(run, _tracking(run), True) as tool:
            tool.begin(0)
            tool.row({"step": 1, "loss": 1.0})
    assert len(caplog.records) == 1


def _tracking(run: RunDir) -> RunConfig:
    config = run.config()
    return config.model_copy(update={"train": config.train.model_copy(update={"track": "mlflow"})})


def test_a_whole_run_sends_its_rows_and_its_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = make(tmp_path / "run", train={"track": "tensorboard"})
    assert execute(run) == EXIT_DONE
    points = of_tensorboard(run, "")
    steps = [row["step"] for row in read_rows(run.path / "metrics.jsonl")]
    assert [step for step, _ in points["loss"]] == steps
    scores = named_scores(read_rows(run.path / "evaluation.jsonl"))
    assert scores[0][0] in points
    assert len(scores) == sum(name.startswith("evaluation/") for name in points)


@pytest.mark.parametrize("tool", ["tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_missing_is_reported_before_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setattr("mpdit.trackers.find_spec", lambda _: None)
    wanted = plan(f"seeds: 1\nvariants: {{A: {{train.track: {tool}}}}}")
    with pytest.raises(ConfigError, match=rf"^train\.track: .*pip install 'mpdit\[{tool}\]'"):
        submit(wanted, tmp_path / "results", Execution())
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("told", "meant"), [(True, "tensorboard"), (False, None)])
def test_the_former_switch_is_read_and_the_id_stays(told: bool, meant: str | None) -> None:
    config = tiny_config()
    tree = config.resolved()
    del tree["train"]["track"]
    tree["train"]["tensorboard"] = told
    old = read_run(tree)
    assert (old.train.track, old.id) == (meant, config.id)


def test_without_a_tool_nothing_is_written(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    before = sorted(run.path.rglob("*"))
    tracker = Tracker(run, run.config(), None)
    tracker.begin(0)
    tracker.row({"step": 1, "loss": 1.0})
    tracker.scores(SCORES)
    tracker.close()
    assert sorted(run.path.rglob("*")) == before
