"""What the tests of sampling share."""

from pathlib import Path

import pytest

from mpdit.disk.rundir import RunDir
from tests.helpers.trained import trained


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return trained(tmp_path / "study" / "run")
