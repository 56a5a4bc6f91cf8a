"""Published numbers stand beside ours, where they are of the same thing."""

import math
from pathlib import Path
from typing import Any

import pytest

from analysis import NothingToShow, Study, tables
from analysis.judging import literature
from analysis.loading.load import load
from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import make_run
from mpdit.disk.rundir import RunDir
from mpdit.flops import count_parameters
from mpdit.grid.names import slug
from mpdit.modelconfig import ModelConfig
from tests.helpers import synthetic

LADDER = dict(zip(("A", "B", "C", "D", "E"), (0, 1, 2, 3, 8), strict=True))
FID: dict[str, Any] = {"metric": "FID@10000", "extractor": "inception", "count": 10_000}


def latents_study(
    path: Path, models: dict[str, dict[str, Any]], seeds: int = 2, data: Any = None
) -> Study:
    """Runs on the paper's data; the distance is 90, less 5 a variant, and rises with the seed."""
    entries = []
    for order, (variant, model) in enumerate(models.items()):
        for seed in range(seeds):
            run = make_run(
                {
                    "model": model,
                    "data": data or "imagenet128-latents",
                    "train": {"steps": synthetic.STEPS},
                    "seed": seed,
                }
            )
            folder = RunDir(path / f"{variant}_s{seed}-{run.id}")
            count = sum(count_parameters(run.model, run.data.spec).values())
            synthetic.write_run(folder, run, 0.0, order, count)
            (folder.path / "evaluation.jsonl").unlink()
            synthetic.write_evaluation(folder, 90 - 5 * order + seed, seed, **FID)
            entry = synthetic.entry(folder, run, variant, count)
            entries.append(entry | {"named": variant.split("_")[0]})
    return load(synthetic.write_listing(path, entries))


@pytest.fixture(scope="module")
def both_sizes(tmp_path_factory: pytest.TempPathFactory) -> Study:
    models = {
        f"{step}_{slug(size)}": {"name": size, **dict.fromkeys(PAPERS_FLAGS[:flags], True)}
        for step, flags in LADDER.items()
        for size in literature.LADDER_MODELS
    }
    return latents_study(tmp_path_factory.mktemp("ladder"), models)


def test_table_1_has_a_column_a_size_and_the_papers_numbers_in_their_own(both_sizes: Study) -> None:
    table = tables.ladder_by_size(both_sizes)
    of_c = table[(table["step"] == "C") & (table["model"] == "DiT-XS/2")].iloc[0]
    assert of_c["published_distance"] == 86.49
    assert (of_c["mean"], of_c["baseline"]) == (90 - 5 * 4 + 0.5, "A_DiT-XS-2")
    text = tables.TABLES["ladder_by_size"].text(table).set_index("step")
    assert list(text.index) == list("ABCDE")
    assert list(text.columns) == [
        *("DiT-XS/2 FID@10000 ↓", "DiT-XS/2 change"),
        *("DiT-XS/2 FID, arXiv:2505.19122", "DiT-XS/2 Δ, %, arXiv:2505.19122"),
        *("DiT-S/4 FID@10000 ↓", "DiT-S/4 change", "DiT-S/4 Δ, %, arXiv:2505.19122"),
    ]
    assert list(text["DiT-XS/2 FID, arXiv:2505.19122"]) == ["–", "–", "86.49", "89.38", "–"]
    assert list(text["DiT-S/4 Δ, %, arXiv:2505.19122"]) == ["–", "–", "–", "–", "−12.8"]
    assert text.loc["A", "DiT-S/4 change"] == "baseline"
    assert text.loc["E", "DiT-XS/2 change"].startswith("−44.2 % [")  # 50.5 / 90.5 − 1


def test_a_study_of_one_size_has_no_table_by_size(study: Study) -> None:
    with pytest.raises(NothingToShow, match="one model size"):
        tables.ladder_by_size(study)


def test_the_long_ladder_has_them_too(both_sizes: Study) -> None:
    table = tables.ladder(both_sizes).set_index("variant")
    published = table["published_distance"].dropna()
    assert dict(published) == {"C_DiT-XS-2": 86.49, "D_DiT-XS-2": 89.38}
    assert table.loc["C_DiT-XS-2", "published_source"] == "arXiv:2505.19122"
    assert table.loc["A_DiT-XS-2", "published_parameters"] == 7_608_832
    assert table.loc["E_DiT-S-4", "published_source"] == "arXiv:2505.19122, map-dit"
    assert (table["parameters"] == table["published_parameters"])[
        table["published_parameters"].notna()
    ].all()
    text = tables.pretty(tables.ladder(both_sizes))
    assert {"FID@10000, arXiv:2505.19122", "parameters, map-dit"} <= set(text.columns)


def test_table_2_has_the_official_codes_counts(tmp_path: Path) -> None:
    mods = {"name": "DiT-S/2", "preset": "mods"}
    study = latents_study(
        tmp_path,
        {
            "adaln": mods,
            "rotation": {**mods, "conditioning": "rotation"},
            "rotation_scale": {
                **mods, "conditioning": "rotation_scale", "final_conditioning": "scale+shift"
            },
            "everywhere": {**mods, "conditioning": "rotation_scale"},
            "scale": {**mods, "conditioning": "scale+gate"},
        },
        seeds=1,
    )  # fmt: skip
    table = tables.modulation(study).set_index("variant")
    counts = table["published_parameters"].dropna()
    assert list(counts) == [32_794_443, 27_264_818, 31_024_971, 30_951_243]
    # the paper's 5.4 %, and 5.62 % with the final layer's modulation changed too
    assert table.loc["rotation_scale", "relative_size"] == pytest.approx(-0.0540, abs=5e-5)
    assert table.loc["everywhere", "relative_size"] == pytest.approx(-0.0562, abs=5e-5)
    assert table["published_distance"].isna().all()  # the paper's were not to be had
    assert (table["published_source"].loc[["adaln", "scale"]] == ["map-dit", ""]).all()


def test_on_other_data_nothing_published_stands_beside_ours(study: Study, tmp_path: Path) -> None:
    for table in (tables.ladder(study), tables.modulation(study), tables.overhead(study)):
        columns = [name for name in table if name.startswith("published")]
        assert columns
        assert not table[columns].replace("", math.nan).notna().any(axis=None)
    model = {"name": "DiT-XS/2"}
    data = {"name": "latents", "channels": 4, "size": 32, "classes": 10}
    other = latents_study(tmp_path, {"A": model, "B": {**model, PAPERS_FLAGS[0]: True}}, data=data)
    assert not any("arXiv" in name for name in tables.pretty(tables.ladder(other)))


def test_training_time_is_paired_on_one_device_and_has_the_papers(both_sizes: Study) -> None:
    table = tables.overhead(both_sizes).set_index("variant")
    assert table.loc["E_DiT-XS-2", "published_relative"] == 0.085
    assert math.isnan(table.loc["A_DiT-XS-2", "published_relative"])
    # synthetic runs all see 1600 images/s, in batches of 256
    assert table["step_seconds"].tolist() == pytest.approx([0.16] * 10)
    assert table.loc["E_DiT-XS-2", "relative"] == 0
    assert table.loc["E_DiT-XS-2", "pairs"] == 2
    assert math.isnan(table.loc["A_DiT-XS-2", "relative"])
    text = tables.TABLES["overhead"].text(table.reset_index()).set_index("variant")
    assert text.loc["E_DiT-S-4", "Δ, %, arXiv:2505.19122"] == "+8.5"
    assert text.loc["B_DiT-XS-2", "against"] == "A_DiT-XS-2"


def test_runs_on_other_devices_are_not_held_against_each_other(tmp_path: Path) -> None:
    path = synthetic.write_study(tmp_path / "study")
    for file in path.glob("E-all_s1*/provenance.json"):
        file.write_text(file.read_text().replace('"device": "cpu"', '"device": "gpu"'))
    for file in path.glob("E-all_s*/metrics.jsonl"):
        file.write_text(file.read_text().replace("1600.0", "1000.0"))
    table = tables.overhead(load(path)).set_index("variant")
    last = table.loc["E-all"]
    assert (last["seeds"], last["pairs"], last["device"]) == (2, 1, "cpu, gpu")
    assert last["relative"] == pytest.approx(0.6)
    assert math.isnan(last["relative_low"])
    # modulations are held against the ladder's last step
    assert table.loc["E-all_rotation", "baseline"] == "E-all"


def test_a_ninth_flag_changes_no_published_row() -> None:
    """The rows name their flags; ``all`` is the paper's eight."""
    run = {"data.name": literature.DATA, "model.conditioning": "adaln", "model": "DiT-XS/2"}
    found = literature.ladder({**run, "flags": PAPERS_FLAGS})
    assert found is not None
    assert found.relative == -0.128
    assert literature.ladder({**run, "flags": (*PAPERS_FLAGS, "ninth")}) is None


def test_results_that_lack_a_later_field_keep_their_published_count() -> None:
    model = ModelConfig.model_validate({"name": "DiT-XS/2"}).model_dump(mode="json")
    run = {"data.name": literature.DATA, **{f"model.{key}": value for key, value in model.items()}}
    assert literature.parameters(run) == 7_608_832
    del run["model.mp_attention"]
    assert literature.parameters(run) == 7_608_832
