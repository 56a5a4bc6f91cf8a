"""What a site wants of its jobs is in the script that sbatch is given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mpdit.errors import ConfigError
from mpdit.grid.plan import Plan, make_plan
from mpdit.grid.site import site_resources
from mpdit.study.retry import adjust
from mpdit.study.screens.messages import dry_run
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, choose_cluster, stored_plan, submit
from tests.helpers.plans import BASE, grid_from_text
from tests.helpers.pretended import PretendedSlurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedSlurm:
    return PretendedSlurm(tmp_path / "bin", monkeypatch)


def planned(text: str, *sets: str) -> Plan:
    """With the defaults of the site."""
    grid = grid_from_text(BASE + text, "grid.yaml", sets, site_resources())
    return make_plan(grid)


def options(script: str) -> set[str]:
    return {line for line in script.splitlines() if line.startswith("#SBATCH")}


def sent(slurm: PretendedSlurm, tmp_path: Path, text: str, on_end: str | None = None) -> list[str]:
    submit(planned(text), tmp_path / "results", Execution("slurm", on_end=on_end))
    return slurm.scripts


def test_no_wckey_is_sent_unless_one_is_asked_for(slurm: PretendedSlurm, tmp_path: Path) -> None:
    text = "variants: {A: {}, B: {mp_silu: true, slurm: {extra: {wckey: team}}}}\nseeds: 2"
    plain, with_key = sent(slurm, tmp_path, text)
    assert "--wckey" not in plain
    assert "#SBATCH --wckey=team" in options(with_key)


def test_any_value_of_an_option_is_quoted_as_sbatch_reads_it(
    slurm: PretendedSlurm, tmp_path: Path
) -> None:
    text = r"""slurm: {extra: {container-image: '/a b#~', comment: 'it''s \', contiguous: true}}"""
    (script,) = sent(slurm, tmp_path, text)
    wanted = ("container-image='/a b#~'", "comment='it'\"'\"'s \\\\'", "contiguous")
    assert {f"#SBATCH --{option}" for option in wanted} <= options(script)
    assert {"--container-image=/a b#~", "--comment=it's \\", "--contiguous"} <= {*slurm.tested}


def test_setup_is_executed_before_python_and_stops_the_job_where_it_fails(
    slurm: PretendedSlurm, tmp_path: Path
) -> None:
    text = "slurm: {setup: [module load cuda, conda activate 'a b'], python: python3 -X dev}"
    (script,) = sent(slurm, tmp_path, text)
    lines = script.splitlines()
    at = lines.index("module load cuda")
    assert lines[at - 1 : at + 3] == [
        "set -e",
        "module load cuda",
        "conda activate 'a b'",
        "set +e",
    ]
    (command,) = (line for line in lines if line.startswith("srun"))
    assert " python3 -X dev -u -m submitit" in command
    assert at < lines.index(command)


def test_the_python_that_submits_is_the_jobs_unless_another_is_named(
    slurm: PretendedSlurm, tmp_path: Path
) -> None:
    (script,) = sent(slurm, tmp_path, "slurm: {time: 5}")
    assert f" {sys.executable} -u -m submitit" in script
    assert "set -e" not in script


def test_runs_inherit_the_scripts_environment_whatever_the_script_inherits(
    slurm: PretendedSlurm, tmp_path: Path
) -> None:
    (script,) = sent(slurm, tmp_path, "slurm: {extra: {export: NONE}}")
    assert "#SBATCH --export=NONE" in options(script)
    assert " --export=ALL " in script


def test_sbatchs_variables_are_options_of_the_script_and_known_to_its_jobs(
    slurm: PretendedSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "proj 2")
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    monkeypatch.setenv("SBATCH_OUTPUT", "elsewhere")
    (script,) = sent(slurm, tmp_path, "slurm: {partition: main}")
    assert {"#SBATCH --account='proj 2'", "#SBATCH --partition=main"} <= options(script)
    assert "export SBATCH_ACCOUNT='proj 2'" in script.splitlines()
    assert "elsewhere" not in script
    assert "SBATCH_" not in slurm.environment(1)  # they would go over the script


def test_a_dry_run_says_where_each_value_comes_from(
    slurm: PretendedSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "proj2")
    monkeypatch.setenv("SBATCH_OUTPUT", "x")
    plan = planned("slurm: {setup: [module load a]}", "slurm.memory=2G")
    said = [line.split() for line in dry_run(plan, tmp_path / "results", Execution("slurm"))]
    for words in (
        *("# account proj2 SBATCH_ACCOUNT", "# setup module load a grid.yaml:6"),
        *("# memory 2G --set slurm.memory=2G", "# time 30 DefaultTime of main"),
    ):
        assert words.split() in said
    assert any(words[-1:] == ["SBATCH_OUTPUT"] for words in said)
    assert not slurm.scripts


@pytest.mark.usefixtures("slurm")
def test_a_default_of_the_site_sends_nothing_to_slurm_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "proj2")
    assert choose_cluster("auto", planned("")) == "local"
    assert choose_cluster("auto", planned("", "slurm.time=5")) == "slurm"


@pytest.mark.parametrize("variable", ["SBATCH_CLUSTERS", "SLURM_CLUSTERS"])
def test_another_cluster_is_refused_before_anything_is_written(
    slurm: PretendedSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "two")
    with pytest.raises(ConfigError, match=f"^{variable}=two: jobs of other clusters cannot"):
        sent(slurm, tmp_path, "slurm: {time: 5}")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("partition: GPU", "grid.yaml:6: slurm.partition: .*Did you mean 'gpu'"),
        ("time: 2-00", "grid.yaml:6: slurm.time: 2880 minutes exceed"),
        ("partition: gpu, time: infinite, extra: {nonsense: 1}", "^grid.yaml:6: slurm.extra.nons"),
    ],
)
def test_what_slurm_would_refuse_is_named_with_its_place(
    slurm: PretendedSlurm, tmp_path: Path, resources: str, message: str
) -> None:
    slurm.refuse("*--nonsense*", "unrecognized option '--nonsense=1'")
    with pytest.raises(ConfigError, match=message):
        sent(slurm, tmp_path, f"slurm: {{{resources}}}")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("accepts", ["''", "*--test-only*"])
def test_what_no_node_has_is_named_by_the_keys_that_ask_for_it(
    slurm: PretendedSlurm, tmp_path: Path, accepts: str
) -> None:
    slurm.refuse("*--mem=90T*", "Requested node configuration is not available", accepts)
    keys = "time: 5, memory: 90T, account: a, extra: {mincpus: 900, nice: 1}"
    with pytest.raises(ConfigError) as caught:
        sent(slurm, tmp_path, f"slurm: {{{keys}}}")
    message = str(caught.value)
    assert message.startswith("grid.yaml:6: slurm.memory; grid.yaml:6: slurm.extra.mincpus: sbatch")


RULES = """\
slurm:
  {partition: gpu, account: a, qos: q, constraint: c, gpus: h100:4, time: 5, memory: 90G,
   setup: [module load a], extra: {reservation: r, container-image: /x, exclusive: true}}
"""
KEPT = {
    *("partition=gpu", "account=a", "qos=q", "constraint=c", "time=5"),
    *("reservation=r", "container-image=/x", "ntasks-per-node=1"),
}


def test_a_notice_goes_where_the_runs_go_and_asks_for_little(
    slurm: PretendedSlurm, tmp_path: Path
) -> None:
    _, notice = sent(slurm, tmp_path, RULES, on_end="true")
    assert {f"#SBATCH --{option}" for option in KEPT} <= options(notice)
    assert "module load a" in notice
    for option in ("--gpus", "--mem", "--exclusive"):
        assert option not in notice


def test_a_notice_has_one_gpu_where_it_must_have_one(slurm: PretendedSlurm, tmp_path: Path) -> None:
    slurm.refuse("*--partition=gpu*", "this partition is for GPUs", unless="*--gpus-per-node*")
    _, notice = sent(slurm, tmp_path, RULES, on_end="true")
    assert "#SBATCH --gpus-per-node=h100:1" in options(notice)


def test_a_notice_that_is_refused_stops_no_run(slurm: PretendedSlurm, tmp_path: Path) -> None:
    slurm.refuse("*-end*", "no jobs of little use")
    with pytest.raises(ConfigError, match=r"^All runs were submitted, .* no jobs of little use"):
        sent(slurm, tmp_path, RULES, on_end="true")
    assert len(slurm.scripts) == 1
    (claim,) = StudyDir(tmp_path / "results" / "s").claims()
    assert [array.job for array in claim.arrays] == ["1"]


def test_a_retry_takes_resources_for_this_time_and_nothing_else(
    slurm: PretendedSlurm, tmp_path: Path
) -> None:
    sent(slurm, tmp_path, "variants: {A: {}, B: {mp_silu: true}}\nslurm: {time: 5, gpus: 1}")
    study = StudyDir(tmp_path / "results" / "s")
    runs = stored_plan(study).runs
    sets = ["slurm.partition=gpu", "slurm.time=60", "variants.B.slurm.gpus=2"]
    found = [run.resources for run in adjust(runs, study, "x2", None, sets)]
    assert [(own.partition, own.time, own.gpus) for own in found] == [
        ("gpu", 60, 1),
        ("gpu", 60, 2),
    ]
    for text, message in [
        ("train.steps=5", "a retry can only set resources"),
        ("seeds=5", "a retry can only set resources"),
        ("variants.C.slurm.time=5", "there is no variant 'C'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            adjust(runs, study, None, None, [text])
