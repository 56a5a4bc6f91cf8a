"""What a run asks of Slurm: in the grid, by --set, by SBATCH_*, and in the user's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mpdit.disk.yamlfile import parse_value
from mpdit.errors import ConfigError
from mpdit.grid.plan import make_plan
from mpdit.grid.resources import NO_LIMIT, Resources
from mpdit.grid.site import site_resources, unused_variables
from tests.helpers.plans import BASE, grid_from_text, plan

VARIANTS = """\
ladder: {A: {}, B: {mp_silu: true, slurm: {time: 30}}, C: {mp_residual: true}}
slurm: {partition: main, time: 60}
"""


def resources(text: str, *sets: str) -> Resources:
    return plan(f"slurm: {{{text}}}", *sets).runs[0].resources


def refusal(text: str, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(text, *sets)
    return str(caught.value)


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *(("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-12", 3600), ("1-00:30", 1470)),
        *(("0:01", 1), ("1-02:03:04", 1564), ("infinite", NO_LIMIT), ("UNLIMITED", NO_LIMIT)),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert resources(f"time: {text}").time == minutes


@pytest.mark.parametrize(
    ("text", "memory"), [("16g", "16G"), ("16GB", "16GB"), ("500M", "500M"), ("0", "0")]
)
def test_memory_is_read_as_slurm_reads_it(text: str, memory: str) -> None:
    assert resources(f"memory: {text}").memory == memory


def test_gpus_may_name_their_kind() -> None:
    found = resources("gpus: a100:2")
    assert (found.gpus, found.gpu_type) == (2, "a100")
    assert "gpus already names a kind: a100:2" in refusal("slurm: {gpus: a100:2, gpu_type: h100}")
    assert "text like 'a100:2', not 'many'" in refusal("slurm: {gpus: many}")


def test_a_number_for_a_name_is_to_be_quoted_lest_its_zeros_are_lost() -> None:
    assert "slurm.account: should be text: put 123 in quotes" in refusal("slurm: {account: 0123}")
    assert resources("account: '0123'").account == "0123"


ODD = [
    "/scratch/pytorch.sqsh",
    "a b",
    "x#y",
    "~/x",
    "k=v",
    "it's",
    'say "x"',
    r"a\b",
    "é",
    "n[1-2]",
]


@pytest.mark.parametrize("value", ODD)
def test_an_option_of_sbatch_takes_any_value(value: str) -> None:
    made = plan("slurm: {}", f"slurm.extra.container-image={value}").runs[0]
    quoted = value.replace("'", "''")
    assert resources(f"extra: {{container-image: '{quoted}'}}").extra == {"container-image": value}
    assert made.resources.extra["container-image"] == value


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        *((name, "cannot be set") for name in ("array", "output", "error", "job-name", "signal")),
        *((name, "cannot be set") for name in ("requeue", "no-requeue", "no_requeue", "wrap")),
        *((name, "cannot be set") for name in ("parsable", "wait", "test-only", "quiet", "chdir")),
        *((name, "other clusters cannot be") for name in ("clusters", "cluster-constraint")),
        *((name, "by its long name") for name in ("M", "-M", "--clusters", "a b", "n")),
        *((name, "in full") for name in ("outp", "cluster", "err", "part", "time-lim"[:3])),
        *((name, "set it by slurm.gpus") for name in ("gpus", "gpus-per-socket")),
    ],
)
def test_an_option_that_submission_sets_is_refused_by_name(option: str, reason: str) -> None:
    said = refusal(f'slurm:\n  extra:\n    "{option}": x')
    assert said.startswith(f"grid.yaml:8: slurm.extra.{option}: ")
    assert reason in said


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[BEGIN, END]", "takes an option once"),
        ("{a: 1}", "takes an option once"),
        ("", "or true for none"),
        ('"a\\nb"', "should be a value in one line"),
    ],
)
def test_a_value_that_sbatch_cannot_be_given_is_refused(value: str, reason: str) -> None:
    said = refusal(f"slurm: {{extra: {{mail-type: {value}}}}}")
    assert said.startswith("grid.yaml:6: slurm.extra.mail-type: ")
    assert reason in said


def test_gpus_are_not_asked_for_behind_the_launchers_back() -> None:
    for text in ("gpu:2", "shard:1,gpu:a100:2", "gres/gpu:1"):
        assert "set GPUs by slurm.gpus" in refusal(f"slurm: {{extra: {{gres: '{text}'}}}}")
    assert resources("extra: {gres: gpu_mem:80G}").extra == {"gres": "gpu_mem:80G"}


def test_two_spellings_of_an_option_are_one() -> None:
    text = "variants: {A: {slurm: {extra: {mail-type: END}}}}\nslurm: {extra: {mail_type: BEGIN}}"
    assert plan(text).runs[0].resources.extra == {"mail-type": "END"}
    assert "mail-type is listed twice" in refusal(
        "slurm: {extra: {mail-type: END, mail_type: BEGIN}}"
    )


def test_memory_by_the_cpu_takes_the_place_of_memory_by_the_node_and_the_other_way() -> None:
    by_cpu = "variants: {A: {slurm: {extra: {mem-per-cpu: 2G}}}}\nslurm: {memory: 8G}"
    found = plan(by_cpu).runs[0].resources
    assert (found.memory, found.extra) == (None, {"mem-per-cpu": "2G"})
    by_node = "variants: {A: {slurm: {memory: 8G}}}\nslurm: {extra: {mem-per-cpu: 2G}}"
    found = plan(by_node).runs[0].resources
    assert (found.memory, found.extra) == ("8G", {"mem-per-cpu": False})


def test_setup_is_a_list_of_commands_or_a_text_of_lines() -> None:
    assert resources("setup: [module load cuda, export A=1]").setup == (
        "module load cuda",
        "export A=1",
    )
    block = plan("slurm:\n  setup: |\n    module load cuda\n    export A=1\n").runs[0]
    assert block.resources.setup == ("module load cuda", "export A=1")
    assert "a list of shell commands" in refusal("slurm: {setup: {a: b}}")
    assert "No closing quotation" in refusal('slurm: {python: "\'a"}')


# --set -------------------------------------------------------------------------------------------


def test_resources_are_set_for_all_runs_and_over_them_for_one_variant() -> None:
    sets = (
        "ladder.B.slurm.time=2:00:00",
        "slurm.time=5",
        "slurm.extra.nice=3",
        "slurm.gpus=h100:2",
    )
    found = [run.resources for run in plan(VARIANTS, *sets).runs]
    assert [own.time for own in found] == [5, 120, 5]
    assert all((own.gpus, own.gpu_type, own.extra) == (2, "h100", {"nice": 3}) for own in found)
    assert [run.id for run in plan(VARIANTS, *sets).runs] == [run.id for run in plan(VARIANTS).runs]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slurm.tiem=5", r"slurm.tiem: unknown resource. Did you mean 'time'?"),
        ("slurm.time=soon", "slurm.time: a time limit is minutes"),
        ("slurm.extra.array=1", "slurm.extra.array: cannot be set"),
        ("slurm=5", "slurm: should be a mapping of resources"),
        ("slurm.runs_per_job=4", ""),
        ("ladder.b.slurm.time=5", "there is no variant 'b'. Did you mean 'B'?"),
    ],
)
def test_a_wrong_resource_is_refused_as_in_a_grid(text: str, message: str) -> None:
    if message:
        assert refusal(VARIANTS, text) == f"--set {text}: {message}" or message in refusal(
            VARIANTS, text
        )
    else:
        assert "share one node, not 2" in refusal(VARIANTS, text, "slurm.nodes=2")


@pytest.mark.parametrize(
    "value",
    ["/data/run #3", "a: b", "x #", "*x", "&x", "!x", "no", "on", "2026-11-26", "- x", "%x", "@x"],
)
def test_a_set_value_is_taken_to_its_last_character(value: str) -> None:
    assert plan("", f"data.path={value}").runs[0].config.data.path == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}), ('"a #b"', "a #b"), ("'1'", "1")),
        *((" 1e-3 ", 1e-3), ("true", True), ("null", None), ("", ""), ("400_000", 400_000)),
    ],
)
def test_a_set_value_is_of_the_type_that_a_grid_gives_it(text: str, value: object) -> None:
    assert parse_value(text, "x").tree == value


@pytest.mark.parametrize("text", ["[1] # c", '"a" #3', "'a", "[1", "[1], [2]", '"a", "b"'])
def test_what_follows_a_set_value_is_not_dropped(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_value(text, "x")


# Defaults of the site ----------------------------------------------------------------------------


def at(tmp_path: Path, file: str = "", **variables: str) -> dict[str, str]:
    """An environment with a file of the user's."""
    if file:
        (tmp_path / "mpdit").mkdir()
        (tmp_path / "mpdit" / "slurm.yaml").write_text(file)
    return {"XDG_CONFIG_HOME": str(tmp_path), **variables}


def asked(environment: Mapping[str, str]) -> dict[str, object]:
    return site_resources(environment).model_dump(exclude_defaults=True)


def test_the_grid_goes_over_sbatchs_variables_and_they_over_the_users_file(tmp_path: Path) -> None:
    environment = at(
        tmp_path,
        "account: mine\npartition: slow\nsetup: [module load cuda]\nextra: {reservation: r}\n",
        SBATCH_ACCOUNT="proj2",
        SBATCH_PARTITION="low",
        SBATCH_WCKEY="team",
    )
    text = "variants: {A: {}, B: {mp_silu: true, slurm: {account: null, extra: {wckey: false}}}}\n"
    made = make_plan(
        grid_from_text(
            f"{BASE}{text}slurm: {{partition: main}}", "grid.yaml", (), site_resources(environment)
        )
    )
    ours, theirs = (run.resources for run in made.runs)
    file = tmp_path / "mpdit" / "slurm.yaml"
    assert ours.rows() == [
        ("partition", "main", "grid.yaml:7"),
        ("account", "proj2", "SBATCH_ACCOUNT"),
        ("setup", "module load cuda", f"{file}:3"),
        ("extra.reservation", "r", f"{file}:4"),
        ("extra.wckey", "team", "SBATCH_WCKEY"),
    ]
    assert (theirs.account, theirs.extra["wckey"]) == (None, False)


@pytest.mark.parametrize(
    ("variables", "resources"),
    [
        ({"QOS": "q", "CONSTRAINT": "a&b"}, {"qos": "q", "constraint": "a&b"}),
        ({"TIMELIMIT": "1-12"}, {"time": 2160}),
        ({"MEM_PER_NODE": "16000"}, {"memory": "16000M"}),
        ({"MEM_PER_CPU": "4G"}, {"extra": {"mem-per-cpu": "4G"}}),
        ({"GPUS_PER_NODE": "a100:2"}, {"gpus": 2, "gpu_type": "a100"}),
        ({"GRES": "gpu"}, {"gpus": 1}),
        ({"GRES": "gpu:4"}, {"gpus": 4}),
        (
            {"GRES": "shard:1,gpu:h100:2"},
            {"gpus": 2, "gpu_type": "h100", "extra": {"gres": "shard:1"}},
        ),
        ({"EXCLUSIVE": ""}, {"extra": {"exclusive": True}}),
        ({"EXCLUSIVE": "user"}, {"extra": {"exclusive": "user"}}),
        ({"OVERCOMMIT": "yes", "SPREAD_JOB": "no"}, {"extra": {"overcommit": True}}),
        ({"REQ_SWITCH": "1", "WAIT4SWITCH": "60"}, {"extra": {"switches": "1@60"}}),
        ({"ACCOUNT": "", "RESERVATION": "", "OUTPUT": "x", "GPUS": "3"}, {}),
    ],
)
def test_sbatchs_variables_mean_what_they_mean_to_sbatch(
    tmp_path: Path, variables: dict[str, str], resources: dict[str, object]
) -> None:
    named = {f"SBATCH_{name}": value for name, value in variables.items()}
    assert asked(at(tmp_path, **named)) == resources
    unused = ["SBATCH_OUTPUT", "SBATCH_GPUS"] if "OUTPUT" in variables else []
    assert unused_variables(named) == unused


def test_what_is_wrong_in_a_default_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^SBATCH_TIMELIMIT: time: a time limit is minutes"):
        site_resources(at(tmp_path, SBATCH_TIMELIMIT="soon"))
    with pytest.raises(ConfigError, match=r"slurm\.yaml:2: acount: .*Did you mean 'account'"):
        site_resources(at(tmp_path, "qos: a\nacount: b\n"))
