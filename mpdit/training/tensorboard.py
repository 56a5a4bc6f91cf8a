"""The rows of metrics.jsonl as TensorBoard events, where train.tensorboard asks for it."""

from __future__ import annotations

from mpdit.disk.files import make_folder
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.training.meters import Row


class Events:
    """Writes each column as a scalar under the run's ``tensorboard/``.

    Args:
        step: training resumes from here; later events of an earlier start are hidden.

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
        make_folder(run.path / "tensorboard")
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1)

    def add(self, row: Row) -> None:
        """Add one row of metrics."""
        for name in row.keys() - {"step"}:
            self.writer.add_scalar(name, row[name], row["step"])

    def close(self) -> None:
        self.writer.close()
