"""Metrics in Weights & Biases, MLflow or TensorBoard, where ``train.track`` asks for it.

metrics.jsonl and evaluation.jsonl are the source, and the tool has a copy of their rows. track.json
records which rows the tool has, and under which id. So a resumed run continues the same run of the
tool, sends no step twice, and sends missing rows at the next start. An error of a tool is reported
in the log and never fails a run.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from threading import Thread
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from mpdit.config import RunConfig
from mpdit.disk.files import make_folder, read_rows, write_atomic
from mpdit.disk.rundir import RunDir
from mpdit.runtime.session import log
from mpdit.text import one_line
from mpdit.trackers import TITLES, ToolName

Row = Mapping[str, Any]
PATIENCE_S = 60
"""About the most seconds for which a server that does not answer delays a run."""


@dataclass(frozen=True)
class Sent:
    """The content of track.json: the rows of a run that a tool has.

    Attributes:
        tool: its name.
        id: the run's id there.
        step: the last training step whose row was sent; -1 before the first.
        scores: how many rows of evaluation.jsonl were sent.
    """

    tool: str
    id: str = ""
    step: int = -1
    scores: int = 0


_SENT = TypeAdapter(Sent)


class Tool(Protocol):
    """A tool with one run open in it."""

    id: str
    """The run's id there."""

    def send(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers of one training step."""

    def conclude(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers of the trained model."""

    def close(self) -> None:
        """Send what is buffered, and end."""


class Tracker:
    """Sends a run's rows to its tool; without a tool it does nothing.

    Args:
        tool: its name; None sends nothing.
    """

    def __init__(self, run: RunDir, config: RunConfig, tool: ToolName | None) -> None:
        self.run, self.config, self.tool = run, config, tool
        self.opened: Tool | None = None
        self.sent = Sent(tool or "")

    def begin(self, step: int) -> None:
        """Open the tool's run, and send the rows of metrics.jsonl that it lacks.

        Args:
            step: training resumes after this one.
        """

        def start() -> None:
            self._open(step)
            for row in read_rows(self.run.path / "metrics.jsonl"):
                self._send_row(row)

        self._try(start)

    def row(self, row: Row) -> None:
        """Send a row of metrics.jsonl, unless the tool has its step."""
        self._try(lambda: self._send_row(row))

    def scores(self, rows: Sequence[Row]) -> None:
        """Send the rows of evaluation.jsonl that the tool lacks."""

        def send() -> None:
            self._open(self.config.train.steps)
            if self.opened is not None and (new := named_scores(rows)[self.sent.scores :]):
                self.opened.conclude(dict(new), self.config.train.steps)
                self._note(scores=self.sent.scores + len(new))

        self._try(send)

    def close(self) -> None:
        """End the tool's run, without waiting long for a server that does not answer."""
        opened, self.opened = self.opened, None
        if opened is None or self.tool is None:
            return

        ending = Thread(target=self._try, args=(opened.close,), daemon=True)
        ending.start()
        ending.join(PATIENCE_S)
        if ending.is_alive():
            log.warning("%s has not taken the last rows in %d s", TITLES[self.tool], PATIENCE_S)

    def _open(self, step: int) -> None:
        if self.tool is None or self.opened is not None:
            return
        try:
            known = _SENT.validate_json((self.run.path / "track.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            known = Sent(self.tool)
        self.sent = known if known.tool == self.tool else Sent(self.tool)
        if self.tool == "tensorboard":  # which forgets the steps past a resume
            self.sent = replace(self.sent, step=min(self.sent.step, step))
        self.opened = TOOLS[self.tool](self.run, self.config, self.sent.id, step)
        self._note(id=self.opened.id)

    def _send_row(self, row: Row) -> None:
        step = row["step"]
        if self.opened is not None and step > self.sent.step:
            self.opened.send(finite(row), step)
            self._note(step=step)

    def _note(self, **changes: Any) -> None:
        self.sent = replace(self.sent, **changes)
        write_atomic(self.run.path / "track.json", json.dumps(asdict(self.sent)))

    def _try(self, work: Callable[[], None]) -> None:
        """Do some work with the tool; after an error, do no more work with it."""
        if self.tool is None:
            return
        try:
            work()
        except Exception as error:
            log.warning(
                "%s takes no more metrics (%s: %s). The run continues; metrics.jsonl has every "
                "row, and the next start sends what is missing",
                TITLES[self.tool],
                type(error).__name__,
                one_line(str(error)),
            )
            self.tool = self.opened = None


@contextmanager
def tracked(run: RunDir, config: RunConfig, main: bool) -> Iterator[Tracker]:
    """The tracker of a run, in its main process; it is closed however the work ends."""
    tracker = Tracker(run, config, config.train.track if main else None)
    try:
        yield tracker
    finally:
        tracker.close()


def finite(row: Row) -> dict[str, float]:
    """The numbers of a row but its step."""
    numbers = {name: v for name, v in row.items() if isinstance(v, int | float) and name != "step"}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def named_scores(rows: Iterable[Row]) -> list[tuple[str, float]]:
    """Rows of evaluation.jsonl but sweeps, as ``evaluation/FD-digits@500`` and their values.

    Other roles than the run's own are named: ``… floor``, ``… repeat 1``.
    """
    seen: Counter[str] = Counter()
    named = []
    for row in rows:
        role, name = row["role"], f"evaluation/{row['metric']}"
        if role == "repeat":
            seen[name] += 1
            name = f"{name} repeat {seen[name]}"
        elif role != "run":
            name = f"{name} {role}"
        if role != "sweep":
            named.append((name, float(row["value"])))
    return named


class TensorBoard:
    """Events under the run's ``tensorboard/``; those past the resumed step are hidden."""

    def __init__(self, run: RunDir, config: RunConfig, id: str, step: int) -> None:  # noqa: ARG002
        from torch.utils.tensorboard.writer import SummaryWriter

        self.id = id
        make_folder(run.path / "tensorboard")
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1)

    def send(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # track.json must not list rows that a kill could lose

    conclude = send

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of the project that is named as the study, unless $WANDB_PROJECT is set.

    Without a network, ``WANDB_MODE=offline`` keeps it under the run's ``wandb/``, for
    ``wandb sync``.
    """

    def __init__(self, run: RunDir, config: RunConfig, id: str, step: int) -> None:  # noqa: ARG002
        import wandb

        self.id = id or secrets.token_hex(6)
        make_folder(run.path / "wandb")
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, init_timeout=PATIENCE_S
        )
        self.opened = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or study_of(run),
            id=self.id,
            name=run.name,
            group=variant_of(run),
            config=config.resolved(),
            dir=str(run.path),
            resume="allow",
            settings=quiet,
        )

    def send(self, values: Mapping[str, float], step: int) -> None:
        self.opened.log(dict(values), step=step)

    def conclude(self, values: Mapping[str, float], step: int) -> None:  # noqa: ARG002
        self.opened.summary.update(dict(values))  # a resumed run takes no more of its last step

    def close(self) -> None:
        self.opened.finish()


class MLflow:
    """A run of the experiment that is named as the study, at $MLFLOW_TRACKING_URI.

    Where that is not set, of a store in the study's folder ``mlruns``.
    """

    def __init__(self, run: RunDir, config: RunConfig, id: str, step: int) -> None:  # noqa: ARG002
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # else it waits for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PATIENCE_S // 3))
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place:
            folder = run.path.absolute().parent / "mlruns"
            make_folder(folder)
            place = folder.as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs a server
        from mlflow import MlflowClient

        self.client = MlflowClient(place)
        self.id = id or self._new(run, config)
        self.client.update_run(self.id, status="RUNNING")

    def _new(self, run: RunDir, config: RunConfig) -> str:
        study = study_of(run)
        known = self.client.get_experiment_by_name(study)
        place = known.experiment_id if known else self.client.create_experiment(study)
        tags = {"study": study, "variant": variant_of(run), "run": run.name}
        made = self.client.create_run(place, tags=tags, run_name=run.name)
        for key, value in flat(config.resolved()):
            self.client.log_param(made.info.run_id, key, str(value)[:500])
        return str(made.info.run_id)

    def send(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        metrics = [
            Metric(_PLAIN.sub("-", name), value, now, step) for name, value in values.items()
        ]
        self.client.log_batch(self.id, metrics)

    conclude = send

    def close(self) -> None:
        self.client.set_terminated(self.id)


TOOLS: dict[ToolName, Callable[[RunDir, RunConfig, str, int], Tool]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
_PLAIN = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow accepts in no name."""


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A nested config as dotted keys and values."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def study_of(run: RunDir) -> str:
    """The name of the study's folder."""
    return run.path.absolute().parent.name


def variant_of(run: RunDir) -> str:
    """The run's name without seed and id."""
    return re.sub(r"_s\d+-[0-9a-f]+$", "", run.name)
