"""What a retry gives a run: amounts, and factors of what it was last submitted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpdit.errors import ConfigError
from mpdit.grid.resources import Resources
from mpdit.study.retry import adjust, last_cluster
from mpdit.study.studydir import StudyDir
from tests.helpers.plans import plan


def adjusted(
    folder: Path, said: dict[str, object], time: str | None, memory: str | None
) -> Resources:
    """Of one run whose grid asks for an hour and 16 GB, last submitted with ``said``."""
    made = plan("slurm: {time: 60, memory: 16G}")
    study = StudyDir(folder)
    names = study.write_table(made, "grid.yaml")
    if said:
        study.note_submitted({names[made.runs[0].id]: said})
    return adjust(made.runs, StudyDir(folder), time, memory)[0].resources


@pytest.mark.parametrize(
    ("said", "time", "memory", "expected"),
    [
        ({}, None, None, (60, "16G")),
        ({}, "x2", "x1.5", (120, "24G")),
        ({"time": 120, "memory": "24G"}, "x2", None, (240, "24G")),
        ({"time": 120, "memory": "1G"}, "4:00:00", "x1.5", (240, "1536M")),
        ({"time": 120, "memory": "1G"}, None, "300M", (120, "300M")),
        ({"time": 120, "memory": "1K"}, "x0.001", "x0.001", (1, "1K")),
    ],
)
def test_factors_are_of_the_last_submission(
    tmp_path: Path,
    said: dict[str, object],
    time: str | None,
    memory: str | None,
    expected: tuple[int, str],
) -> None:
    found = adjusted(tmp_path, said, time, memory)
    assert (found.time, found.memory) == expected


@pytest.mark.parametrize(
    ("said", "time", "memory", "message"),
    [
        ({}, "soon", None, "--time soon: a time limit is minutes, or text like"),
        ({}, None, "lots", "--memory lots: memory is text like 16G, or a factor like x2"),
        ({"memory": None}, None, "x2", "had no memory to multiply; give an amount like 16G"),
        ({"time": None}, "x2", None, "had no time to multiply; give one like 4:00:00"),
        ({"memory": "0"}, None, "x2", "had all of a node's memory; give an amount like 16G"),
        ({}, "x0", None, "or a factor like x2"),
        ({}, None, "x0.0", "or a factor like x2"),
        ({}, "x" + "9" * 5000, None, "or a factor like x2"),
        ({}, None, "x" + "9" * 5000, "or a factor like x2"),
    ],
)
def test_what_cannot_be_meant_is_said(
    tmp_path: Path, said: dict[str, object], time: str | None, memory: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        adjusted(tmp_path, said, time, memory)


def test_a_retry_goes_where_the_study_last_went(tmp_path: Path) -> None:
    adjusted(tmp_path, {"cluster": "slurm", "time": 1, "memory": None}, None, None)
    assert last_cluster(StudyDir(tmp_path)) == "slurm"


def test_memory_for_each_cpu_is_multiplied_or_replaced(tmp_path: Path) -> None:
    made = plan("slurm: {time: 60, extra: {mem-per-cpu: 2G}}")
    study = StudyDir(tmp_path)
    study.write_table(made, "grid.yaml")
    (doubled,) = adjust(made.runs, study, None, "x2")
    assert (doubled.resources.memory, doubled.resources.extra) == (None, {"mem-per-cpu": "4G"})
    (other,) = adjust(made.runs, study, None, "8G")
    assert (other.resources.memory, other.resources.extra) == ("8G", {"mem-per-cpu": False})
