"""What was submitted is what runs, whatever becomes of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.study import codesnapshot
from mpdit.study.cancel import cancel
from mpdit.study.runprocess import start_run
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir, find_study
from mpdit.study.submission import Execution, submit
from tests.helpers import stand_in
from tests.helpers.launching import commit, launch_of, make_checkout, set_version
from tests.helpers.plans import BASE, plan
from tests.helpers.tiny import make

PATIENCE_S = 60


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout whose stand-in notes the version 1."""
    folder = make_checkout(tmp_path / "checkout")
    set_version(folder, "1")
    yield folder
    if (tmp_path / "results" / "s").exists():
        cancel(StudyDir(tmp_path / "results" / "s"))


def launch(checkout: Path, *words: str, cwd: Path | None = None) -> str:
    """What a checkout's launch.py prints, beside the folder of results."""
    done = subprocess.run(
        [sys.executable, "-c", launch_of(checkout), *words],
        cwd=cwd or checkout.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit_text(checkout: Path, text: str, *words: str) -> str:
    grid = checkout.parent / "grid.yaml"
    grid.write_text(BASE + text)
    return launch(checkout, "submit", str(grid), "--cluster", "local", *words)


def statuses(checkout: Path) -> dict[str, RunStatus]:
    found = survey(find_study("s", checkout.parent / "results"))
    return {status.variant: status for status in found}


def starts(checkout: Path, variant: str) -> list[dict[str, Any]]:
    run = checkout.parent / "results" / "s" / statuses(checkout)[variant].name
    return [row for row in read_rows(run / "starts.jsonl") if "began" in row]


def versions(checkout: Path, variant: str) -> list[str]:
    return [row["version"] for row in starts(checkout, variant)]


def stop(study: StudyDir) -> None:
    """End the running run, so that its pool starts the next one."""
    (running,) = (s for s in survey(StudyDir(study.path)) if s.state == "running")
    state = study.run(running.name).state()
    assert state is not None
    os.kill(state.pid, signal.SIGTERM)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _edit_version(checkout: Path) -> None:
    set_version(checkout, "2")


@pytest.mark.parametrize("change", [_edit_version, shutil.rmtree])
def test_a_waiting_run_executes_the_code_that_submitted_it(
    checkout: Path, change: Callable[[Path], None]
) -> None:
    submit_text(checkout, "variants: {slow: {}, next: {mp_silu: true}}", "--max-parallel", "1")
    wait_until(lambda: statuses(checkout)["slow"].step > 2)
    assert not starts(checkout, "next")
    change(checkout)
    stop(StudyDir(checkout.parent / "results" / "s"))
    wait_until(lambda: statuses(checkout)["next"].state == "done")
    assert versions(checkout, "next") == ["1"]
    study = StudyDir(checkout.parent / "results" / "s")
    (snapshot,) = (study.path / ".code").iterdir()
    assert starts(checkout, "next")[0]["code"] == str(snapshot)
    wait_until(lambda: not study.claims())


@pytest.mark.long
def test_two_checkouts_share_a_study_and_no_current_folder_comes_between(checkout: Path) -> None:
    other, decoy = checkout.with_name("other"), checkout.with_name("decoy")
    shutil.copytree(checkout, other)
    set_version(other, "2")
    (decoy / "mpdit").mkdir(parents=True)
    (decoy / "mpdit" / "__init__.py").write_text("raise RuntimeError('the wrong code')")
    results, grid = str(checkout.parent / "results"), str(checkout.parent / "grid.yaml")
    Path(grid).write_text(BASE + "variants: {A: {}, B: {mp_silu: true}}")
    words = ("submit", grid, "--cluster", "local", "--wait", "--results", results, "--only")
    launch(checkout, *words, "A", cwd=decoy)
    launch(other, *words, "B", cwd=decoy)
    assert (versions(checkout, "A"), versions(checkout, "B")) == (["1"], ["2"])
    told = launch(other, "status", "s", "--results", results)
    for variant in "AB":
        code = Path(starts(checkout, variant)[0]["code"]).name[:7]
        assert f"{code}: 1 run ({statuses(checkout)[variant].name})" in told
    again = launch(other, *words, "A", cwd=decoy)
    assert "1 run done with the code of the submission" in again


def test_the_same_code_is_one_snapshot_and_keeps_its_newest_origin(checkout: Path) -> None:
    submit_text(checkout, "seeds: 1", "--wait")
    code = checkout.parent / "results" / "s" / ".code"
    (snapshot,) = code.iterdir()
    origin = json.loads((snapshot / "origin.json").read_text())
    assert '+__version__ = "1"' in origin["diff"]
    made = commit(checkout)
    submit_text(checkout, "seeds: 2", "--wait")
    assert list(code.iterdir()) == [snapshot]
    origin = json.loads((snapshot / "origin.json").read_text())
    assert (origin["commit"], origin["diff"], origin["checkout"]) == (made, "", str(checkout))


def test_a_failed_run_is_retried_with_the_present_code_and_an_interrupted_one_keeps_its_own(
    checkout: Path,
) -> None:
    text = "variants: {raises: {}, slow: {mp_silu: true}}"
    submit_text(checkout, text, "--max-parallel", "2")
    wait_until(lambda: statuses(checkout)["slow"].step > 2)
    wait_until(lambda: statuses(checkout)["raises"].state == "failed")
    old = Path(starts(checkout, "slow")[0]["code"]).name[:7]
    set_version(checkout, "2")
    said = launch(checkout, "retry", "s")
    wait_until(lambda: statuses(checkout)["raises"].state == "done")
    assert versions(checkout, "raises") == ["1", "2"]
    new = Path(starts(checkout, "raises")[1]["code"]).name[:7]
    name = statuses(checkout)["raises"].name
    assert f"{new}: 1 run retried with the present code (before: {old}) ({name})" in said
    assert f"code: {new}; it has changed" in said
    launch(checkout, "cancel", "s")
    said = submit_text(checkout, text)
    name = statuses(checkout)["slow"].name
    assert f"{old}: 1 run resumed with the code of the first start ({name})" in said
    wait_until(lambda: len(starts(checkout, "slow")) == 2)
    assert versions(checkout, "slow") == ["1", "1"]
    said = submit_text(checkout, text)
    assert f"{old}: 1 run running with the code of the submission ({name})" in said


def test_live_code_is_the_checkouts_as_it_is_when_a_run_starts(checkout: Path) -> None:
    text = "variants: {slow: {}, next: {mp_silu: true}}"
    said = submit_text(checkout, text, "--max-parallel", "1", "--live-code")
    assert f"live from {checkout}" in said
    wait_until(lambda: statuses(checkout)["slow"].step > 2)
    set_version(checkout, "2")
    stop(StudyDir(checkout.parent / "results" / "s"))
    wait_until(lambda: statuses(checkout)["next"].state == "done")
    assert versions(checkout, "next") == ["2"]
    assert not (checkout.parent / "results" / "s" / ".code").exists()


@pytest.fixture
def interrupted(tmp_path: Path) -> RunDir:
    """A run that was stopped half-way, whose snapshot is as it was submitted."""
    how = Execution(command=stand_in.COMMAND)
    submission = submit(plan("variants: {slow: {}}"), tmp_path / "results", how)
    run = submission.study.run(submission.runs[0])
    wait_until(lambda: (state := run.state()) is not None and state.step > 2)
    cancel(submission.study)
    assert submission.process is not None
    submission.process.wait(PATIENCE_S)
    return run


def _delete(snapshot: Path) -> None:
    shutil.rmtree(snapshot)


def _edit(snapshot: Path) -> None:
    (snapshot / "mpdit" / "errors.py").write_text("edited")


def _add(snapshot: Path) -> None:
    (snapshot / "mpdit" / "added.py").write_text("")


@pytest.mark.parametrize("damage", [_delete, _edit, _add])
def test_a_damaged_snapshot_is_never_executed(
    interrupted: RunDir, damage: Callable[[Path], None]
) -> None:
    snapshot = interrupted.path.parent / codesnapshot.read(interrupted.path)
    damage(snapshot)
    with pytest.raises(ConfigError, match=rf"{snapshot} (is missing|was changed)"):
        start_run(interrupted, stand_in.COMMAND, 1)


def test_the_snapshot_of_an_interrupted_run_cannot_be_replaced_by_other_code(
    interrupted: RunDir,
) -> None:
    study = StudyDir(interrupted.path.parent)
    other = codesnapshot.read(interrupted.path)[:-1] + "x"
    (interrupted.path / "code.json").write_text(json.dumps({"code": other}))
    results, how = study.path.parent, Execution(command=stand_in.COMMAND)
    with pytest.raises(ConfigError, match=rf"{other} is missing.* --live-code"):
        submit(plan("variants: {slow: {}}"), results, how)
    assert not study.claims()


def test_a_damaged_snapshot_of_the_present_code_is_written_anew(tmp_path: Path) -> None:
    files = {"mpdit/__init__.py": b"", "launch.py": b"pass"}
    place = tmp_path / ".code" / codesnapshot.codefiles.digest(files)
    codesnapshot.take(place, files)
    _edit(place)
    codesnapshot.take(place, files)
    codesnapshot.check(place)
    assert list(place.parent.iterdir()) == [place]


def test_a_pool_reports_a_missing_snapshot_as_the_runs_error(tmp_path: Path) -> None:
    text = "variants: {slow: {}, next: {mp_silu: true}}"
    how = Execution(command=stand_in.COMMAND, max_parallel=1)
    submission = submit(plan(text), tmp_path / "results", how)
    study = submission.study
    wait_until(lambda: survey(StudyDir(study.path))[0].step > 2)
    shutil.rmtree(study.path / ".code")
    stop(study)
    assert submission.process is not None
    submission.process.wait(PATIENCE_S)
    slow, waiting = survey(StudyDir(study.path))
    assert (slow.word, waiting.state) == ("interrupted", "failed")
    assert waiting.error is not None
    assert waiting.error.startswith(f"{study.path / '.code'}")


def test_a_resumed_runs_config_keeps_the_keys_that_its_code_knows(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    file = run.path / "config.yaml"
    kept = [line for line in file.read_text().splitlines() if "micro_batch_size" not in line]
    file.write_text("\n".join(kept))
    changed = make(tmp_path / "other", train={"checkpoint_every": 7, "micro_batch_size": 4})
    run.write_config(changed.config(), known_keys=True)
    assert "micro_batch_size" not in file.read_text()
    assert run.config().train.checkpoint_every == 7


def test_a_users_own_command_at_the_end_has_the_users_own_python_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    place = tmp_path / ".code" / "0123"
    inside = {**os.environ, **codesnapshot.environment(place)}
    assert inside["PYTHONPATH"] == f"{place}:/mine"
    assert codesnapshot.without(inside) == dict(os.environ)
