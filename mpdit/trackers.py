"""The tools that a run can send its metrics to (``train.track``)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from mpdit.errors import ConfigError

ToolName = Literal["tensorboard", "wandb", "mlflow"]
TITLES: dict[ToolName, str] = {
    "tensorboard": "TensorBoard",
    "wandb": "Weights & Biases",
    "mlflow": "MLflow",
}
"""Each is also the name of the module that is imported, and of the extra that pip installs."""


def check_installed(tool: ToolName | None) -> None:
    """Look for a tool's library without importing it.

    Raises:
        ConfigError: when it is not installed.
    """
    if tool is not None and find_spec(tool) is None:
        raise ConfigError(
            f"{TITLES[tool]} is not installed. Run: pip install 'mpdit[{tool}]'", "train.track"
        )
