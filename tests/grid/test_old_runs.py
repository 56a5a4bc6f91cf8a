"""Runs of version 0.1 (commit 47d443a) keep their ids, are found, load, resume and compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import yaml

import analysis
from mpdit.config import SampleConfig, make_run, read_run
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir, find_run, id_in
from mpdit.errors import ConfigError
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.section import HOW, Formerly, Later, Section
from mpdit.study.status import missing, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, submit
from tests.helpers import ROOT
from tests.helpers.interrupted import finish_forked
from tests.helpers.plans import load_plan
from tests.helpers.stand_in import COMMAND

OLD = ROOT / "tests" / "golden" / "version-0.1"
ROWS = [json.loads(line) for line in (OLD / "configs.jsonl").read_text().splitlines()]
RUN = next((OLD / "run").iterdir())
GRIDS = ("quickstart", "every-option")


def old_study(results: Path, grid: str) -> StudyDir:
    """The folder of a study that version 0.1 has finished."""
    study = StudyDir(results / grid)
    rows = [row for row in ROWS if row["grid"] == grid]
    for row in rows:
        folder = study.path / row["name"]
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(row["config"], sort_keys=False))
        evaluation = {"metric": "FD-digits@500", "value": 3.0, "extractor": "digits"}
        (folder / "evaluation.jsonl").write_text(json.dumps(evaluation) + "\n")
    entries = [
        {"name": r["name"], "id": r["id"], "variant": r["name"].split("_s")[0], "in_grid": True}
        for r in rows
    ]
    table = {"study": grid, "description": "", "grid": "", "set": [], "runs": entries}
    (study.path / "study.json").write_text(json.dumps(table))
    return study


def plan(grid: str) -> Plan:
    return load_plan(OLD / f"{grid}.yaml", defaults=1)


def test_every_id_begins_with_the_eight_digits_that_it_was() -> None:
    assert len(ROWS) > 80
    assert [read_run(row["config"]).id[:8] for row in ROWS] == [row["id"] for row in ROWS]
    assert {len(read_run(row["config"]).id) for row in ROWS} == {12}


def test_an_old_config_file_is_the_run_that_it_was() -> None:
    config = RunDir(OLD).config()
    assert config.id.startswith("b07d7660")
    written, now = yaml.safe_load((OLD / "config.yaml").read_text()), config.resolved()
    assert (written["train"].pop("tensorboard"), now["train"]["track"]) == (False, None)
    for section in ("model", "data", "train", "sample", "evaluate"):
        assert {key: now[section][key] for key in written[section]} == written[section]


@pytest.mark.parametrize("grid", GRIDS)
def test_all_finished_runs_of_an_old_grid_are_found_done(grid: str, tmp_path: Path) -> None:
    study, whole = old_study(tmp_path, grid), plan(grid)
    assert missing(study, whole.runs) == []
    assert study.compare(whole) == ([], [])
    before = sorted(path.name for path in study.path.iterdir())
    done = submit(whole, tmp_path, Execution(command=COMMAND))
    assert (done.started, done.new, done.dropped) == ((), (), ())
    after = sorted(path.name for path in study.path.iterdir() if not path.name.startswith("."))
    assert after == sorted({*before, "grid.yaml"})
    assert {status.state for status in survey(StudyDir(study.path))} == {"done"}
    entries = StudyDir(study.path).entries
    assert all(
        entry["in_grid"] and entry["id"].startswith(id_in(entry["name"])) for entry in entries
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_old_and_new_runs_are_compared_in_one_study(grid: str, tmp_path: Path) -> None:
    study = old_study(tmp_path, grid)
    loaded = analysis.load(study.path)
    assert list(loaded.missing["what"].unique()) == [
        "its samples are missing: left out of the figure of samples"
    ]
    old = {read_run(row["config"]).id for row in ROWS if row["grid"] == grid}
    assert {run.id for run in plan(grid).runs} == old
    assert set(loaded.runs["design"]) == set(analysis.load(study.path).runs["design"])


def test_a_folder_is_found_by_its_old_id_and_by_its_whole_one(tmp_path: Path) -> None:
    study = old_study(tmp_path, "quickstart")
    row = ROWS[0]
    assert find_run(row["id"], tmp_path).name == row["name"]
    assert study.places(plan("quickstart").runs)[read_run(row["config"]).id] == row["name"]


def test_another_run_with_the_same_eight_digits_is_not_taken_for_it(tmp_path: Path) -> None:
    study = old_study(tmp_path, "quickstart")
    first, second, *_ = plan("quickstart").runs
    theirs = study.path / f"other_s0-{first.id[:8]}"
    shutil.move(study.path / ROWS[0]["name"], theirs)
    shutil.copy(study.path / ROWS[1]["name"] / "config.yaml", theirs / "config.yaml")
    assert first.id not in study.places([first, second])
    assert missing(study, [first, second]) == [first]


def test_a_renamed_variant_keeps_its_old_folder(tmp_path: Path) -> None:
    study = old_study(tmp_path, "quickstart")
    first: PlannedRun = plan("quickstart").runs[0]
    shutil.move(study.path / ROWS[0]["name"], study.path / f"renamed_s0-{first.id[:8]}")
    assert study.places([first]) == {first.id: f"renamed_s0-{first.id[:8]}"}


def test_a_run_that_version_01_began_is_resumed_to_its_end(tmp_path: Path) -> None:
    run = RunDir(tmp_path / RUN.name)
    shutil.copytree(RUN, run.path)
    finish_forked(run)
    assert run.is_done()
    assert "step 13" in run.log.read_text()
    rows = read_rows(run.path / "metrics.jsonl")
    before = read_rows(RUN / "metrics.jsonl")
    assert rows[: len(before)] == before
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 24]


# Fields that come, go, and change their names -----------------------------------------------------


class Before(Section):
    width: int = 8
    depth: int = 2
    where: Annotated[str, HOW] = "here"


class After(Section):
    retired: ClassVar[dict[str, Any]] = {"depth": 2}
    channels: Annotated[int, Formerly("width")] = 8
    norm: Annotated[str, Later(as_before="layer")] = "rms"
    where: Annotated[str, HOW] = "here"


def test_an_old_section_means_the_same_after_a_field_came_went_and_was_renamed() -> None:
    old = Before(width=16).model_dump()
    new = After.model_validate({**old, "norm": "layer"})
    assert new.channels == 16
    assert new.identity() == Before(width=16).identity() == {"width": 16, "depth": 2}


def test_a_later_fields_other_values_are_other_runs_whatever_its_default() -> None:
    assert After().identity() == {"width": 8, "depth": 2, "norm": "rms"}


def test_what_is_left_of_a_retired_field_is_one_value() -> None:
    with pytest.raises(ValueError, match=r"depth was removed; only 2 is still accepted"):
        After.model_validate({"depth": 3})


def test_a_field_is_not_given_by_its_former_name_and_its_own() -> None:
    with pytest.raises(ValueError, match=r"width is the former name of channels"):
        After.model_validate({"width": 3, "channels": 3})


def test_the_grid_of_an_older_study_may_set_what_was_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(SampleConfig, "retired", {"tiled": False})
    grid = tmp_path / "grid.yaml"
    text = "study: s\nbase: {data: digits, model: {name: DiT-XS/2}, train: {steps: 4}"
    text += ", sample: {tiled: false}}\n"
    grid.write_text(text)
    assert load_plan(grid).runs[0].config.science()["sample"]["tiled"] is False
    grid.write_text(text.replace("false", "true"))
    with pytest.raises(ConfigError, match=r"tiled was removed; only False"):
        load_plan(grid)


def test_an_unknown_field_is_still_an_error() -> None:
    config = json.loads(json.dumps(ROWS[0]["config"]))
    config["train"]["learnign_rate"] = 1
    with pytest.raises(ConfigError, match=r"train.learnign_rate: unknown key"):
        make_run(config)
