"""The rows of metrics.jsonl as TensorBoard events, where train.tensorboard asks for it."""

from __future__ import annotations

from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.training.meters import Row


class Events:
    """Scalars under the run's ``tensorboard/``, one a column.

    Args:
        step: training goes on from here; what an earlier start wrote past it is shown no more.

    Raises:
        ConfigError: when TensorBoard is not installed.
    """

    def __init__(self, run: RunDir, step: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise ConfigError(
                "TensorBoard is not installed: pip install tensorboard", "train.tensorboard"
            ) from None
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1)

    def add(self, row: Row) -> None:
        """One row of metrics."""
        for name in row.keys() - {"step"}:
            self.writer.add_scalar(name, row[name], row["step"])

    def close(self) -> None:
        self.writer.close()
