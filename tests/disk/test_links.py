"""A link in the folder of somebody else leads no write and no deletion out of it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from analysis.loading.load import load
from analysis.report import page
from mpdit.disk import holds, lease
from mpdit.disk.files import append_row, new_aside, write_atomic
from mpdit.disk.rundir import RunDir, RunState
from mpdit.ema.power import write_snapshot
from mpdit.errors import ConfigError
from mpdit.runtime.session import open_session
from mpdit.runtime.tracking import TensorBoard
from mpdit.study.runprocess import start_run
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, submit
from mpdit.training import checkpoint
from tests.helpers import stand_in, synthetic
from tests.helpers.plans import plan
from tests.helpers.tiny import tiny_config


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with files of the names that are written, swept and removed."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("step_00000001.pt", "step_00000002.pt", ".tmpabc", "report.html", "a.jsonl"):
        (folder / name).write_text("precious")
    return folder


def link(place: Path, outside: Path) -> None:
    """Make ``place`` a link: to the folder, or to a file in it where the name is a file's."""
    place.symlink_to(outside / "report.html" if "." in place.name[1:] else outside)


def enter_session(run: RunDir) -> None:
    with open_session(run):
        pass


def take(run: RunDir) -> None:
    with run.lease():
        pass


OF_A_RUN: list[tuple[str, Callable[[RunDir], object]]] = [
    ("log.txt", enter_session),
    ("log.txt", lambda run: start_run(run, ["true"], 1)),
    ("state.json", lambda run: run.write_state(RunState())),
    ("config.yaml", lambda run: run.write_config(tiny_config())),
    ("metrics.jsonl", lambda run: append_row(run.path / "metrics.jsonl", {})),
    ("lock.d", take),
    ("checkpoints", lambda run: checkpoint.save(run.checkpoints, 3, {})),
    ("checkpoints", lambda run: checkpoint.sweep(run.checkpoints, 9)),
    ("ema", lambda run: write_snapshot(run.ema / "a.safetensors", {"w": torch.zeros(1)})),
    ("samples", lambda run: write_atomic(run.samples / "grid.png", b"")),
    ("tensorboard", lambda run: TensorBoard(run, tiny_config(), "", 0)),
]


@pytest.mark.parametrize(("name", "write"), OF_A_RUN)
def test_what_a_run_writes_follows_no_link(
    tiny_run: RunDir, outside: Path, name: str, write: Callable[[RunDir], object]
) -> None:
    place = tiny_run.path / name.removesuffix(".d")
    place.unlink(missing_ok=True)
    link(place, outside)
    before = contents(outside)
    with pytest.raises(ConfigError, match=f"^{place} is a symbolic link"):
        write(tiny_run)
    assert contents(outside) == before


@pytest.mark.parametrize("name", [".lock", ".jobs", "grid.yaml", "study.json", "RUN"])
def test_a_submission_follows_no_link_out_of_the_study(
    tmp_path: Path, outside: Path, name: str
) -> None:
    made = plan("seeds: 1")
    place = tmp_path / "results" / "s" / (made.runs[0].name if name == "RUN" else name)
    place.parent.mkdir(parents=True)
    if name == "study.json":
        (outside / "report.html").write_text('{"runs": []}')
    link(place, outside)
    before = contents(outside)
    with pytest.raises(ConfigError, match=f"^{place} is a symbolic link"):
        submit(made, tmp_path / "results", Execution(command=stand_in.COMMAND))
    assert contents(outside) == before


@pytest.mark.parametrize("runs", [["a"], []])
def test_holding_and_releasing_follow_no_link(
    tmp_path: Path, outside: Path, runs: list[str]
) -> None:
    study = StudyDir(tmp_path / "s")
    study.path.mkdir()
    link(study.path / holds.NAME, outside)
    before = contents(outside)
    with pytest.raises(ConfigError, match=r"held\.txt is a symbolic link"):
        holds.write_held(study.path, runs)
    assert contents(outside) == before


def test_forgetting_a_submission_removes_a_link_and_not_what_it_leads_to(
    tmp_path: Path, outside: Path
) -> None:
    study = StudyDir(tmp_path / "s")
    study.jobs.mkdir(parents=True)
    (study.jobs / "a").symlink_to(outside)
    before = contents(outside)
    study.drop_dead_claims()
    assert list(study.jobs.iterdir()) == []
    assert contents(outside) == before


@pytest.mark.parametrize("name", ["report", "report/tables", "report/figures"])
def test_a_report_is_not_written_through_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    folder = synthetic.write_study(tmp_path / "s", seeds=1)
    study = load(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    link(folder / name, outside)
    before = contents(outside)
    with pytest.raises(ConfigError, match=f"^{folder / name} is a symbolic link"):
        page.write(study)
    assert contents(outside) == before


def test_the_folders_of_study_and_results_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "scratch" / "elsewhere").mkdir(parents=True)
    (tmp_path / "results").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "s").symlink_to(tmp_path / "scratch" / "elsewhere")
    done = submit(plan("seeds: 1"), tmp_path / "results", Execution(command=stand_in.COMMAND))
    assert done.process is not None
    assert done.process.wait(60) == 0
    (name,) = done.runs
    assert RunDir(tmp_path / "scratch" / "elsewhere" / name).is_done()


def test_files_written_aside_have_random_names_and_are_never_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "study.json"
    assert new_aside(file) != new_aside(file)
    monkeypatch.setattr("secrets.token_hex", lambda _: "0" * 16)
    foreign = new_aside(file)
    foreign.unlink()
    foreign.symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        write_atomic(file, "text")
    assert not (tmp_path / "precious").exists()


def test_what_is_written_aside_without_a_lease_is_swept_after_an_hour(tiny_run: RunDir) -> None:
    study = StudyDir(tiny_run.path.parent)
    old = [new_aside(study.path / "study.json"), new_aside(tiny_run.path / "config.yaml")]
    old.append(study.path / ".study.json.tmp")  # as version 0.1 named it
    old[-1].touch()
    for file in old:
        os.utime(file, (0, 0))
    new = [new_aside(study.path / "study.json"), new_aside(tiny_run.path / "config.yaml")]
    study.drop_dead_claims()
    with tiny_run.lease():
        pass
    assert not any(file.exists() for file in old)
    assert all(file.exists() for file in new)


def test_an_error_leaves_nothing_that_was_written_aside(tiny_run: RunDir) -> None:
    before = sorted(tiny_run.path.iterdir())
    with pytest.raises(KeyboardInterrupt), lease.share(lease.Lease(tiny_run.path, 0)):
        raise_in(tiny_run.path / "state.json")
    assert sorted(tiny_run.path.iterdir()) == before


def raise_in(file: Path) -> None:
    from mpdit.disk.files import written_aside

    with written_aside(file):
        raise KeyboardInterrupt
