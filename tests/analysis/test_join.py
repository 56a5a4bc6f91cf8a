"""Several studies as one."""

import json
import shutil
from pathlib import Path

import pytest

from analysis import Study, tables
from analysis.loading.join import join
from analysis.loading.load import load
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import ConfigError
from tests.helpers import synthetic


def move_seed(source: Path, target: Path, seed: int) -> None:
    """The runs of one seed leave a study for another, on a machine of its own."""
    target.mkdir(parents=True)
    listing = json.loads((source / "study.json").read_text())
    for row in listing["runs"]:
        if row["seed"] == seed:
            (source / row["name"]).rename(target / row["name"])
    for path, there in ((source, False), (target, True)):
        rows = [row for row in listing["runs"] if (row["seed"] == seed) == there]
        (path / "study.json").write_text(json.dumps({"study": "quickstart", "runs": rows}))


def test_seeds_of_two_machines_are_seeds_of_one_variant(tmp_path: Path) -> None:
    whole = tables.ladder(load(synthetic.write_study(tmp_path / "whole")))
    here = synthetic.write_study(tmp_path / "here" / "quickstart")
    there = tmp_path / "there" / "quickstart"
    move_seed(here, there, seed=1)
    study = load([here, there])
    assert study.variants == list(synthetic.VARIANTS)
    assert study.runs["variant"].is_monotonic_increasing
    assert list(study.runs["study"].unique()) == [str(here), str(there)]
    assert study.name == f"{here} + {there}"
    table = tables.ladder(study)
    assert table.equals(whole)
    for frame in (study.metrics, study.magnitudes, study.evaluations, study.provenance):
        assert frame["run"].nunique() == 14
        assert list(frame["study"].cat.categories) == [str(here), str(there)]
    for run in study.runs["run"]:
        assert study.folder(run).path.is_dir()
        assert study.samples(run, 2)[0].shape == (2, 8, 8, 1)


def test_a_run_of_two_studies_counts_where_it_has_come_furthest(tmp_path: Path) -> None:
    first, second = (synthetic.write_study(tmp_path / name, seeds=1) for name in ("one", "two"))
    cut = RunDir(next(first.glob("A-none*")))
    (cut.path / "evaluation.jsonl").unlink()
    cut.write_state(RunState(step=300, steps=1000, stopped="SIGTERM"))
    (cut.path / "metrics.jsonl").unlink()
    study = load([first, second])
    assert len(study.runs) == 7
    assert dict(study.runs["study"].value_counts()) == {"one": 6, "two": 1}
    assert study.folder(cut.name).path.parent == second
    assert len(study.evaluations) == 7
    said = study.missing.set_index("run")["what"]
    assert said[cut.name] == (
        "also in two (done, FD-digits@1000 40), here unfinished, step 300: left out"
    )
    assert sum("also in one (done, FD-digits@1000" in what for what in said) == 6
    assert tables.ladder(study)["mean"].notna().all()


def test_variants_of_one_name_and_two_designs_are_told_apart(tmp_path: Path) -> None:
    first = synthetic.write_study(tmp_path / "one", seeds=1)
    run = synthetic.config({"depth": 6}, 0)
    folder = RunDir(tmp_path / "two" / f"A-none_s0-{run.id}")
    synthetic.write_run(folder, run, 9.0)
    second = synthetic.write_listing(tmp_path / "two", [synthetic.entry(folder, run, "A-none")])
    study = load([first, second])
    assert study.variants == ["one/A-none", *list(synthetic.VARIANTS)[1:], "two/A-none"]
    assert set(study.metrics["variant"].unique()) == set(study.variants)
    baselines = tables.ladder(study).set_index("variant")["baseline"]
    assert baselines["two/A-none"] == "two/A-none"
    assert baselines["E-all"] == "one/A-none"


def test_two_runs_under_one_name_are_an_error(tmp_path: Path) -> None:
    for name, depth in (("one", 4), ("two", 6)):
        run = synthetic.config({"depth": depth}, 0)
        folder = RunDir(tmp_path / name / "same")
        synthetic.write_run(folder, run, 9.0)
        synthetic.write_listing(tmp_path / name, [synthetic.entry(folder, run, "a")])
    with pytest.raises(ConfigError, match="two different runs are named same, in one and two"):
        load([tmp_path / "one", tmp_path / "two"])


def test_a_study_that_has_just_begun_can_be_joined(tmp_path: Path, study: Study) -> None:
    path = synthetic.write_study(tmp_path / "new", seeds=1, A_none="Z")
    for run in path.glob("*_s0-*"):
        shutil.rmtree(run)
    listing = json.loads((path / "study.json").read_text())
    for number, row in enumerate(listing["runs"]):
        row |= {"id": f"{number:08}", "name": f"{row['variant']}_s9-{number:08}", "seed": 9}
    (path / "study.json").write_text(json.dumps(listing))
    joined = join([study, load(path)])
    assert len(joined.runs) == 21
    assert len(joined.metrics) == len(study.metrics)
    assert joined.metrics.dtypes["step"] == study.metrics.dtypes["step"]
