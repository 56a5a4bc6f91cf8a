"""Clusters for the tests in this folder, which two workers have (see ../conftest.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.helpers.slurm.cluster import Cluster, missing, running

FIXTURES = ("cluster", "bare_cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of one cluster together."""
    items.sort(key=lambda item: FIXTURES[1] in getattr(item, "fixturenames", ()))


def _running(accounting: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing(accounting):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm") / "run"
    with running(folder, accounting) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", cluster.users_conf)
        yield cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm with accounting."""
    yield from _running(True, tmp_path_factory)


@pytest.fixture(scope="session")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm without accounting, as many are."""
    yield from _running(False, tmp_path_factory)


@pytest.fixture(autouse=True)
def _on_its_cluster(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Commands talk to the cluster of the test, which leaves it as it was: all up, no jobs."""
    for variable in [name for name in os.environ if name.startswith(("SLURM_JOB", "SBATCH_"))]:
        monkeypatch.delenv(variable)
    for name in FIXTURES:
        if name in request.fixturenames:
            used = request.getfixturevalue(name)
            monkeypatch.setenv("SLURM_CONF", used.users_conf)
            yield
            used.reset()
            return
    yield
