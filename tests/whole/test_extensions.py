"""A user's file in a grid: it works from the plan to the report, and only its own runs know it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import analysis
from analysis import tables
from mpdit import extensions
from mpdit.catalogue import Dataset
from mpdit.config import make_run
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.grid.plan import Plan
from mpdit.model import DiT
from mpdit.modelconfig import ModelConfig
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, stored_plan, submit
from tests.helpers import ROOT
from tests.helpers.ideas import GRID, IDEAS, write_grid
from tests.helpers.plans import load_plan
from tests.helpers.processes import RUN, finish, start
from tests.helpers.stand_in import COMMAND

SHORT = [
    *("train.steps=6", "train.snapshot_every=3", "train.log_every=3"),
    *("sample.count=40", "sample.steps=3", "train.batch_size=8"),
]


def ids(plan: Plan) -> dict[str, str]:
    return {run.variant: run.id for run in plan.runs}


def launch(*words: object, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TWO = """\
from mpdit.catalogue import flag, metric, part

@flag("{0}_flag", code="{0}f", does="nothing")
def change(model):
    pass

@part("{0}_part", does="nothing")
def apply(x, values):
    return x

@metric("{0}_metric", label="{0}M", better="lower", does="nothing")
def measure(samples, real):
    return 0.0
"""


def test_the_order_of_extensions_is_no_part_of_a_run(tmp_path: Path) -> None:
    grid = GRID.replace("grid: {sigmoid_attention: [false, true]}", "variants: {both: {}}")
    sets = ["model.a_flag=true", "model.b_flag=true", "model.conditioning=b_part+a_part"]
    sets.append("evaluate.metrics=[b_metric, a_metric, fd]")
    found = []
    for files in ("a.py, b.py", "b.py, a.py", "c.py, b.py"):  # the last: a file is renamed
        folder = tmp_path / files
        folder.mkdir()
        for file, name in {"a": "a", "b": "b", "c": "a"}.items():
            (folder / f"{file}.py").write_text(TWO.format(name))
        (folder / "grid.yaml").write_text(grid.replace("idea.py", files))
        code = "import sys; from pathlib import Path; from tests.helpers.plans import load_plan; "
        code += "print(load_plan(Path(sys.argv[1]), sys.argv[2:]).runs[0].id)"
        command = [sys.executable, "-c", code, folder / "grid.yaml", *sets]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert len(set(found)) == 1


WRONG = {
    '@flag("depth", code="x", does="")': "cannot be named 'depth', which is an option of the model",
    '@flag("train", code="x", does="")': "which is a section or an option",
    '@flag("reason", code="x", does="")': "which is a key of a grid",
    '@flag("my flag", code="x", does="")': "'my flag' cannot name a flag",
    '@flag("mine", code="a/b", does="")': "the code 'a/b' is not of letters",
    '@flag("mine", code="cos", does="")': "the code 'cos' is taken by 'cosine_attention'",
    '@flag("mine", code="x", does="", needs=["mp_silu"])': "needs should be a mapping",
    '@flag("mine", code="x", does="", needs={"mp_sillu": "r"})': "Did you mean 'mp_silu'",
    '@part("none", does="")': "which is a conditioning mode",
    '@part("a+b", does="")': "'a+b' cannot name a conditioning part",
    '@metric("mine", label="FD", better="lower", does="")': "the label 'FD' is taken by 'fd'",
    '@metric("mine", label="FD-x", better="lower", does="")': "the label 'FD-x' is not of letters",
    '@dataset("d", channels=1, size=8, classes=2, extractor="nope", does="")': "'nope' is not one",
    "raise SystemExit(3)\n@flag('mine', code='x', does='')": "SystemExit: 3",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_name_that_means_something_else_is_refused_with_its_line(
    line: str, tmp_path: Path
) -> None:
    text = f"from mpdit.catalogue import dataset, flag, metric, part\n\n{line}\ndef f(*_): pass\n"
    with pytest.raises(ConfigError) as caught:
        load_plan(write_grid(tmp_path, text))
    assert WRONG[line] in str(caught.value)
    assert f"{tmp_path / 'idea.py'}:3: " in str(caught.value)


@pytest.fixture(scope="module")
def ideas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of experiments/ideas.yaml, made short: a run of every kind of extension."""
    results = tmp_path_factory.mktemp("results")
    sets = [word for value in SHORT for word in ("--set", value)]
    grid = "experiments/ideas.yaml"
    launch("submit", grid, "--cluster", "local", "--wait", "--results", results, *sets)
    return results / "ideas"


def test_every_kind_of_idea_is_trained_sampled_and_evaluated(ideas: Path) -> None:
    runs = {folder.name.partition("_s0")[0]: RunDir(folder) for folder in ideas.glob("*_s0-*")}
    for run in runs.values():
        metrics = [row["metric"] for row in read_rows(run.path / "evaluation.jsonl")]
        assert {"FD-digits@40", "MD-digits@40"} <= set(metrics), run.name
        assert all("better" in row for row in read_rows(run.path / "evaluation.jsonl")[:2])
    used = {name: [one.name for one in run.config().extensions] for name, run in runs.items()}
    assert used == {
        "plain": ["mean_distance"],
        "sigmoid": ["mean_distance", "sigmoid_attention"],
        "squared-relu": ["mean_distance", "squared_relu"],
        "log-scale": ["log_scale", "mean_distance"],
        "min-snr": ["mean_distance", "min_snr"],
        "half-stochastic": ["mean_distance", "stochastic_ddim"],
        "stripes": ["mean_distance", "stripes"],
    }
    for name, run in runs.items():
        copies = sorted(file.stem for file in (run.path / "extensions").iterdir())
        assert copies == used[name]


@pytest.mark.parametrize("normalized", [False, True])
def test_the_squared_relu_keeps_magnitude_with_mp_silu(normalized: bool) -> None:
    flags = {"weight_normalization": normalized, "mp_silu": True, "squared_relu": True}
    sizes = {"depth": 1, "width": 256, "heads": 4, "patch_size": 2}
    extensions.load(IDEAS / "squared_relu.py")
    model = DiT(ModelConfig.model_validate(sizes | flags), Dataset(1, 8, 10, "digits"))
    extensions.unload("squared_relu")
    mlp = model.blocks[0].mlp
    assert mlp.act(torch.randn(1000, 256)).square().mean().sqrt().item() == pytest.approx(
        1, rel=0.02
    )
    if normalized:
        assert mlp(torch.randn(1000, 256)).square().mean().sqrt().item() == pytest.approx(
            1, rel=0.1
        )


def test_the_report_shows_an_extensions_metric_and_executes_nothing(ideas: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, analysis; s = analysis.load(sys.argv[1]); from analysis import tables;"
            "print(list(tables.metrics(s)['metric'])); assert 'torch' not in sys.modules;"
            "assert not [m for m in sys.modules if m.startswith('mpdit_extension')]",
            str(ideas),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "MD-digits@40" in done.stdout
    study = analysis.load(ideas)
    assert list(study.missing["what"]) == []
    assert study.runs.set_index("variant")["flags"]["sigmoid"][-1] == "sigmoid_attention"
    assert not tables.metrics(study).empty


@pytest.mark.long
def test_a_finished_run_is_sampled_and_measured_again_with_its_own_copy(ideas: Path) -> None:
    (run,) = ideas.glob("sigmoid_s0-*")
    for door, *words in (
        ("mpdit.sample", "--count", "4", "--steps", "2", "--out", str(ideas / "some.npz")),
        ("mpdit.evaluate", "--guidance", "1", "2"),
    ):
        command = [sys.executable, "-m", door, str(run), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert {r["role"] for r in read_rows(run / "evaluation.jsonl")} >= {"run", "sweep"}


@pytest.mark.long
def test_a_run_with_an_extension_is_exported_with_it_and_draws_its_own_samples(
    ideas: Path, tmp_path: Path
) -> None:
    run = next(path for path in ideas.iterdir() if path.name.startswith("sigmoid"))
    launch("export", run, tmp_path / "exported")
    code = "import mpdit, numpy, sys; numpy.save(sys.argv[2], mpdit.load(sys.argv[1]).sample())"
    for made, out in ((run, "run.npy"), (tmp_path / "exported", "exported.npy")):
        command = [sys.executable, "-c", code, made, tmp_path / out]
        subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "run.npy").read_bytes() == (tmp_path / "exported.npy").read_bytes()


@pytest.mark.long
def test_two_processes_train_one_run_with_an_extension(tmp_path: Path) -> None:
    plan = load_plan(write_grid(tmp_path))
    run = RunDir(tmp_path / plan.runs[1].name)
    run.write_config(plan.runs[1].config)
    finish(start([*RUN, str(run.path)], 2))
    assert run.is_done()


# Identity -----------------------------------------------------------------------------------------


def test_the_content_is_part_of_the_identity_of_its_users_and_of_no_others(tmp_path: Path) -> None:
    before = ids(load_plan(write_grid(tmp_path)))
    plain = "extensions: [idea.py]\n"
    without = GRID.replace(plain, "").replace("grid: {sigmoid_attention: [false, true]}\n", "")
    other = tmp_path / "other"
    other.mkdir()
    (only,) = load_plan(write_grid(other, grid=without)).runs
    assert before["none"] == only.id
    changed = (IDEAS / "sigmoid_attention.py").read_text() + "\n# another thought\n"
    after = ids(load_plan(write_grid(tmp_path, changed)))
    assert after["none"] == before["none"]
    assert after["sig"] != before["sig"]


def test_where_an_extension_lies_and_what_it_is_called_is_no_part_of_a_run(tmp_path: Path) -> None:
    first = ids(load_plan(write_grid(tmp_path)))
    (tmp_path / "ideas").mkdir()
    shutil.move(tmp_path / "idea.py", tmp_path / "ideas" / "mine.py")
    (tmp_path / "grid.yaml").write_text(GRID.replace("idea.py", "ideas/mine.py"))
    extensions.unload("idea")
    assert ids(load_plan(tmp_path / "grid.yaml")) == first


def test_a_config_with_an_extension_is_read_without_it_and_is_the_same_run(tmp_path: Path) -> None:
    run = load_plan(write_grid(tmp_path)).runs[1]
    folder = RunDir(tmp_path / "run")
    folder.write_config(run.config)
    code = "import sys; from pathlib import Path; from mpdit.disk.rundir import RunDir;"
    code += "c = RunDir(Path(sys.argv[1])).config(); print(c.id, *c.model.flags)"
    (folder.path / "extensions" / "idea.py").unlink()
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True
    )
    assert done.stdout.split() == [run.id, "sigmoid_attention"], done.stderr


def test_the_plan_counts_what_an_extension_adds_as_it_is_now(tmp_path: Path) -> None:
    idea = """\
from mpdit.catalogue import flag
from mpdit.model.layers import MPLinear

@flag("sigmoid_attention", code="sig", does="a map more in every block")
def more(model):
    for block in model.blocks:
        block.attention.extra = MPLinear(16, 3, normalized=False)
        block.memory = MPLinear(5, 7, normalized=False)
"""
    off, on = load_plan(write_grid(tmp_path, idea)).runs
    assert on.parameters - off.parameters == 16 * 3 + 5 * 7
    assert on.parts["other"] == 5 * 7
    off, on = load_plan(write_grid(tmp_path, idea.replace("5, 7", "5, 8"))).runs
    assert on.parts["other"] == 5 * 8


def test_a_retry_uses_the_files_that_were_submitted(tmp_path: Path) -> None:
    plan = load_plan(write_grid(tmp_path))
    submitted = submit(plan, tmp_path, Execution(command=COMMAND))
    while submitted.is_working():
        assert submitted.process is not None
        submitted.process.wait(60)
    (tmp_path / "idea.py").write_text("raise RuntimeError('not this one')")
    again = stored_plan(StudyDir(tmp_path / "s"))
    assert ids(again) == ids(plan)


@pytest.mark.parametrize(("change", "said"), [("edit", "changed since"), ("delete", "is missing")])
def test_a_copy_that_is_not_what_the_run_was_made_with_is_not_executed(
    tmp_path: Path, change: str, said: str
) -> None:
    run = RunDir(tmp_path / "run")
    run.write_config(load_plan(write_grid(tmp_path)).runs[1].config)
    copy = run.path / "extensions" / "idea.py"
    if change == "edit":
        copy.write_text(copy.read_text() + "\n")
    else:
        copy.unlink()
    command = [sys.executable, "-m", "mpdit.run", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert said in done.stderr
    assert str(copy) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_hash_in_a_config_is_that_of_the_file(tmp_path: Path) -> None:
    config = load_plan(write_grid(tmp_path)).runs[1].config
    (one,) = config.extensions
    assert one.sha256 == hashlib.sha256((tmp_path / "idea.py").read_bytes()).hexdigest()
    again = make_run(yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(config.resolved())))))
    assert again == config
