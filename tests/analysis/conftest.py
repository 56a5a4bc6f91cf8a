from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import Study
from analysis.loading.load import load
from tests.helpers import synthetic


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, of each test its own."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MPDIT_CACHE", str(path))
    return path


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven variants, two seeds, all done. For reading only."""
    return synthetic.write_study(tmp_path_factory.mktemp("results") / "quickstart")


@pytest.fixture(scope="session")
def study(quickstart: Path) -> Study:
    return load(quickstart)


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Path]:
    """A study that the test may spoil."""
    return lambda **options: synthetic.write_study(tmp_path / "results" / "own", **options)
