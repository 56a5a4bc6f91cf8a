import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis import NothingToShow, Study
from analysis.loading.load import load
from mpdit.catalogue import PAPERS_FLAGS
from mpdit.disk.rundir import RunDir, RunState
from mpdit.errors import ConfigError
from tests.helpers import synthetic

Own = Callable[..., Path]


def folder_of(path: Path, start: str) -> RunDir:
    return RunDir(next(path.glob(f"{start}*")))


def lacks(study: Study, start: str) -> list[str]:
    rows = study.missing[study.missing["run"].str.startswith(start)]
    return list(rows["what"])


def test_frames_are_tidy_and_in_grid_order(study: Study) -> None:
    assert study.name == "quickstart"
    assert study.variants == list(synthetic.VARIANTS)
    assert len(study.runs) == 14
    assert study.runs["variant"].is_monotonic_increasing
    assert study.runs["variant"].cat.ordered
    first = study.runs.iloc[0]
    assert (first["state"], first["step"], first["steps"]) == ("done", 1000, 1000)
    assert first["model"] == "DiT-4x64x4/2"
    assert first["model.conditioning"] == "adaln"
    assert first["train_seconds"] == 40
    assert study.runs["flags"].iloc[-1] == PAPERS_FLAGS
    assert len(study.metrics) == 14 * 20
    assert len(study.magnitudes) == 14 * 20 * (4 * synthetic.BLOCKS + 1)
    assert list(study.magnitudes["block"].unique()) == [1, 2, 3, 4]
    assert list(study.evaluations["value"][:4]) == [40.0, 44.0, 39.0, 43.4]
    assert study.evaluations["reference.hash"].unique() == ["r0"]
    assert study.provenance["packages.torch"].unique() == ["2.9.0"]
    assert study.missing.empty
    for frame in (study.metrics, study.magnitudes, study.evaluations, study.provenance):
        assert list(frame.columns[:3]) == ["run", "variant", "seed"]
        assert list(frame["variant"].cat.categories) == study.variants


def test_without_study_json_the_folders_names_and_configs_say_it(own: Own) -> None:
    path = own()
    (path / "study.json").unlink()
    short = folder_of(path, "A-none_s0").path
    short.rename(path / "A-none_s0-0123456789ab")  # ids have 12 digits, older ones 8
    study = load(path)
    assert study.variants == sorted(synthetic.VARIANTS)
    assert sorted(study.runs["seed"].unique()) == [0, 1]
    assert study.runs["parameters"].notna().all()


def test_runs_that_did_not_finish_are_loaded_and_named(own: Own) -> None:
    path = own()
    failed, running, waiting, cut = (
        folder_of(path, start) for start in ("A-none_s1", "B-cosine_s1", "D-forced_s1", "E-all_s1")
    )
    for run in (failed, running, cut):
        (run.path / "evaluation.jsonl").unlink()
    failed.write_state(RunState(step=300, steps=1000, error="ValueError: loss is not finite"))
    running.write_state(RunState(step=400, steps=1000))
    cut.write_state(RunState(step=500, steps=1000, stopped="SIGTERM"))
    shutil.rmtree(waiting.path)
    with running.lease():
        study = load(path)
    states = study.runs.set_index("run")["state"]
    assert [states[run.name] for run in (failed, running, waiting, cut)] == [
        *("failed", "running", "planned", "unfinished")
    ]
    expected = "failed (train, step 300 of 1,000): ValueError: loss is not finite"
    assert lacks(study, "A-none_s1") == [expected]
    assert lacks(study, "B-cosine_s1") == ["still running (train, step 400 of 1,000)"]
    assert lacks(study, "D-forced_s1") == ["not started"]
    assert lacks(study, "E-all_s1") == ["unfinished (train, step 500 of 1,000)"]
    assert len(study.runs) == 14


def test_torn_and_damaged_files_cost_only_themselves(own: Own) -> None:
    path = own()
    torn, damaged = folder_of(path, "A-none_s0"), folder_of(path, "A-none_s1")
    with (torn.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1050, "lo')
    (damaged.path / "metrics.jsonl").write_bytes(b"\0\0\0\n")
    (damaged.path / "model.json").write_text("{")
    (damaged.path / "config.yaml").write_text("model: {depth: [}")
    (damaged.samples / "samples.npz").write_bytes(b"PK")
    study = load(path)
    assert (study.metrics["run"] == torn.name).sum() == 20
    assert (study.metrics["run"] == damaged.name).sum() == 0
    assert lacks(study, "A-none_s0") == []
    said = " ".join(lacks(study, "A-none_s1"))
    for name in ("metrics.jsonl", "model.json", "config.yaml"):
        assert name in said
    assert (study.evaluations["run"] == damaged.name).sum() == 1
    with pytest.raises(NothingToShow, match="damaged"):
        study.samples(damaged.name, 4)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("provenance.json", {"starts": 5}),
        ("provenance.json", {"starts": [5]}),
        ("provenance.json", {"starts": [{"missing_rows": 3}]}),
        ("model.json", {"parts": None}),
        ("model.json", {"parameters": float("inf")}),
        ("evaluation.jsonl", {"metric": ["x"], "value": 1.0}),
        ("evaluation.jsonl", {"metric": "x", "value": "y"}),
        ("metrics.jsonl", None),
        ("magnitudes.jsonl", None),
    ],
)
def test_a_value_of_another_kind_costs_its_file_or_row_only(
    own: Own, name: str, content: object
) -> None:
    path = own(seeds=1)
    run = folder_of(path, "A-none_s0")
    (run.path / name).write_text(json.dumps(content) + "\n")
    study = load(path)
    assert f"{name}" in " ".join(study.missing.loc[study.missing["run"] == run.name, "what"])
    assert len(study.runs) == 7


def test_a_row_cannot_say_which_run_it_is_of(own: Own) -> None:
    path = own(seeds=1)
    run = folder_of(path, "A-none_s0")
    row = {"run": "other", "variant": "z", "at": [1], "study": "s"}
    synthetic.write_evaluation(run, 1.0, 0, metric="kid", **row)
    found = load(path).evaluations.query("metric == 'kid'")
    assert found[["run", "seed"]].to_numpy().tolist() == [[run.name, 0]]


def test_missing_rows_and_damaged_states_and_rows_are_listed(own: Own) -> None:
    path = own()
    cut, damaged = folder_of(path, "A-none_s0"), folder_of(path, "A-none_s1")
    provenance = json.loads((cut.path / "provenance.json").read_text())
    line = "metrics.jsonl: 3 of its 20 rows up to the checkpoint are missing, of steps 50 to 150"
    provenance["starts"][0]["missing_rows"] = [line]
    (cut.path / "provenance.json").write_text(json.dumps(provenance))
    (damaged.path / "state.json").write_bytes(b"\0" * 40)
    (damaged.path / "evaluation.jsonl").write_bytes(b'{"metric": "\x80"}\n')
    study = load(path)
    assert lacks(study, "A-none_s0") == [line]
    assert lacks(study, "A-none_s1") == [
        "evaluation.jsonl: line 1 is damaged: left out",
        "unfinished (its state.json is damaged)",
    ]
    assert len(study.runs) == 14


def test_a_run_that_left_the_grid_is_named_and_left_out(own: Own) -> None:
    path = own()
    listing = json.loads((path / "study.json").read_text())
    old = listing["runs"].pop(0)
    listing["runs"].append({"name": old["name"], "variant": "gone", "in_grid": False})
    (path / "study.json").write_text(json.dumps(listing))
    study = load(path)
    assert len(study.runs) == 13
    assert "gone" not in study.variants
    assert list(study.missing["what"]) == ["is no longer in the grid: left out"]


def test_only_the_samples_that_are_asked_for_are_read(study: Study) -> None:
    images, labels = study.samples(study.runs["run"].iloc[0], 5)
    assert images.shape == (5, 8, 8, 1)
    assert images.dtype == np.uint8
    assert list(labels) == [0, 1, 2, 3, 4]
    assert images[3].max() == 130


def test_a_mistyped_study_is_told_the_nearest_one(quickstart: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*quikstart\. Did you mean '.*quickstart'"):
        load(quickstart.parent / "quikstart")
    with pytest.raises(ConfigError, match="is a run, not a study"):
        load(next(quickstart.glob("A-none_s0*")))
    with pytest.raises(ConfigError, match="holds no runs"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"holds no runs.*Did you mean .*quickstart"):
        load(quickstart.parent)


def test_a_folder_of_images_with_the_studys_name_does_not_hide_the_study(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "shapes").symlink_to(quickstart)
    (tmp_path / "shapes" / "train" / "circle").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert load("shapes").path == Path("results/shapes")
    with pytest.raises(ConfigError, match="Did you mean 'results/shapes'"):
        load("shaps")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("[]", "damaged"),
        ('{"study": "x", "runs": [{"name": "a"}]}', r"runs\.0\.variant"),
        ('{"study": "x", "runs": []}', "holds no runs"),
        ('{"study": "x", "runs": [{"name": "../a", "variant": "a"}]}', "outside the study"),
        ('{"study": "x", "runs": [{"name": "..", "variant": "a"}]}', "outside the study"),
    ],
)
def test_a_damaged_study_json_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path)


def test_analysis_does_not_wait_for_torch() -> None:
    code = (
        "import sys, analysis, analysis.report.page, analysis.report.terminal, analysis.__main__\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_does_not_wait_for_what_draws() -> None:
    code = (
        "import sys, analysis, analysis.judging.comparison, analysis.__main__\n"
        "assert not {'seaborn', 'matplotlib', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
