"""What sbatch answers: the job, everything that a site says, and that there is no room."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.errors import ConfigError


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """An sbatch that does as the script says; the file to give it."""
    file = folder / "sbatch"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return file


def test_a_jobs_id_comes_with_what_the_site_says_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = answer(
        tmp_path,
        monkeypatch,
        "echo 'sbatch: 90 % of your hours are used' >&2; echo Submitted batch job 17",
    )
    assert slurm.submit(file) == ("17", ["90 % of your hours are used"])


def test_a_refusal_is_told_whole_once_and_in_plain_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        r"sbatch: error: \033[31mno account\007\nask\351 us\nask\351 us\nsbatch: error: Unspecified"
    )
    file = answer(tmp_path, monkeypatch, f"printf '{said}\n' >&2; exit 1")
    with pytest.raises(slurm.RefusedError) as caught:
        slurm.submit(file)
    assert str(caught.value) == "sbatch: no account; ask\ufffd us; Unspecified"


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ("AssocMaxSubmitJobLimit", "AssocMaxSubmitJobLimit"),
        ("QOSGrpSubmitJobsLimit", "QOSGrpSubmitJobsLimit"),
        ("Batch job submission failed: Resource temporarily unavailable", "MaxJobCount"),
    ],
)
def test_a_limit_on_the_number_of_jobs_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, limit: str
) -> None:
    file = answer(tmp_path, monkeypatch, f"echo 'sbatch: error: {said}' >&2; exit 1")
    with pytest.raises(slurm.NoRoomError) as caught:
        slurm.submit(file)
    assert caught.value.limit == limit


def test_sbatch_is_not_waited_for_while_it_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"
    file = answer(tmp_path, monkeypatch, f"echo '{said}' >&2; exec sleep 60")
    began = time.monotonic()
    with pytest.raises(slurm.NoRoomError):
        slurm.submit(file)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "script",
    [
        "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1",
        "echo queued",
        "exec sleep 60",
    ],
)
def test_where_slurm_has_not_answered_that_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.3)
    with pytest.raises(ConfigError) as caught:
        slurm.submit(answer(tmp_path, monkeypatch, script))
    assert not isinstance(caught.value, slurm.RefusedError)
