"""Inception: where its weights are looked for, and that its numbers are torch-fidelity's.

The real weights are 95 MB: torch-fidelity's own network with random ones stands in for them, and
where that takes minutes, a network of one layer.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

from mpdit.catalogue.methods import INCEPTION
from mpdit.config import EvaluateConfig, RunConfig
from mpdit.data.latents import checksum
from mpdit.data.preflight import _torch_hub, check_evaluable, weights_file
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, ConfigError
from mpdit.evaluation import extractors
from mpdit.evaluation.evaluation import evaluate_run
from mpdit.evaluation.extractors import inception
from mpdit.evaluation.extractors.extractor import Extractor, FeatureNetwork
from mpdit.evaluation.metrics import inception_score, statistics
from mpdit.run import execute
from mpdit.runtime.session import Session
from tests.helpers import ROOT
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")
NOWHERE = EvaluateConfig(extractor="inception")


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("MPDIT_INCEPTION", raising=False)


def test_missing_weights_are_one_message_with_the_file_and_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_evaluable(tiny_config(evaluate={"extractor": "inception"}))
    place = tmp_path / "torch" / "hub" / "checkpoints" / INCEPTION.file
    for part in (str(place), INCEPTION.url, "MPDIT_INCEPTION", "evaluate.inception"):
        assert part in str(error.value)
    assert INCEPTION.file == "weights-inception-2015-12-05-6726825d.pth"
    assert INCEPTION.url == URL_INCEPTION_V3


def test_weights_are_where_the_config_says_else_the_environment_else_in_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "torch" / "hub" / "checkpoints" / INCEPTION.file
    told, named = tmp_path / "told.pth", tmp_path / "named.pth"
    cached.parent.mkdir(parents=True)
    for file in (cached, told, named):
        file.touch()
    assert weights_file(NOWHERE) == cached
    monkeypatch.setenv("MPDIT_INCEPTION", str(named))
    assert weights_file(NOWHERE) == named
    config = EvaluateConfig(extractor="inception", inception=str(told))
    assert weights_file(config) == told
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = EvaluateConfig(extractor="inception", inception="~/told.pth")
    assert weights_file(at_home) == told
    with pytest.raises(ConfigError, match=r"are not at ~nobody-here/told\.pth"):
        weights_file(EvaluateConfig(extractor="inception", inception="~nobody-here/told.pth"))
    told.unlink()
    with pytest.raises(ConfigError, match=r"are not at .*told\.pth"):
        weights_file(config)


@pytest.mark.parametrize("variables", [{}, {"XDG_CACHE_HOME": "/x"}, {"TORCH_HOME": "~/t"}])
def test_torchs_cache_is_where_torch_says(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _torch_hub() == Path(torch.hub.get_dir())


def test_a_submission_without_the_weights_is_refused_in_one_line_and_writes_nothing(
    tmp_path: Path,
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "study: s\n"
        "base:\n"
        "  data: digits\n"
        "  model: {depth: 1, width: 16, heads: 2, patch_size: 4}\n"
        "  train: {steps: 1}\n"
        "  evaluate: {extractor: inception}\n"
    )
    command = [sys.executable, str(ROOT / "launch.py"), "submit", str(grid), "--cluster", "local"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_USAGE
    with pytest.raises(ConfigError) as error:
        weights_file(NOWHERE)
    assert str(error.value) in " ".join(ended.stderr.split())
    assert list(tmp_path.iterdir()) == [grid]


def test_a_file_of_something_else_is_not_taken_for_inception(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"run": print}, file)  # a pickle that calls something is not even unpickled
    with pytest.raises(ConfigError, match="does not hold Inception's weights"):
        inception.load(file, CPU)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigError, match="does not hold Inception's weights"):
        inception.load(file, CPU)


def test_a_damaged_file_of_weights_is_said_before_training(tmp_path: Path) -> None:
    file, run = tmp_path / "weights.pth", RunDir(tmp_path / "study" / "run")
    file.write_bytes(b"half a downl")
    run.write_config(tiny_config(evaluate={"extractor": "inception", "inception": str(file)}))
    assert execute(run) == EXIT_FAILED
    said = run.state()
    assert said is not None
    assert f"{file} does not hold Inception's weights" in str(said.error)
    assert not run.checkpoints.exists()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torch-fidelity's network as it is initialized, in a file as its weights come."""
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    kept: dict[str, dict[str, torch.Tensor]] = {}

    def load_state_dict(self: torch.nn.Module, _state: object, **_: object) -> None:
        kept["state"] = {k: v.clone() for k, v in self.state_dict().items()}

    torch.manual_seed(0)
    torch.save({}, file)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FeatureExtractorInceptionV3, "load_state_dict", load_state_dict)
        FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(file))
    torch.save(kept["state"], file)
    return file


def noise(count: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(top).integers(0, top, (count, 16, 16, 3), np.uint8)


def as_files(images: np.ndarray, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


def theirs(a: Path, b: Path, **extractor: str) -> dict[str, float]:
    """What torch-fidelity says of two folders of images."""
    return torch_fidelity.calculate_metrics(  # type: ignore[no-any-return]
        input1=str(a), input2=str(b), cuda=False, batch_size=50, verbose=False, cache=False,
        fid=True, kid=True, isc=True, prc=True, kid_subset_size=24, save_cpu_ram=True, **extractor,
    )  # fmt: skip


def with_inception(weights: Path) -> dict[str, str]:
    name = "inception-v3-compat"
    return {"feature_extractor": name, "feature_extractor_weights_path": str(weights)}


def values(run: RunDir, role: str) -> dict[str, Any]:
    rows = read_rows(run.path / "evaluation.jsonl")
    return {row["metric"]: row["value"] for row in rows if row["role"] == role}


ALL_METRICS = ["fd", "kid", "precision_recall", "inception_score"]


def same(ours: dict[str, Any], theirs: dict[str, float], rel: float) -> None:
    assert ours["FID@24"] == pytest.approx(theirs["frechet_inception_distance"], rel=rel)
    exact = {
        "KID@24": "kernel_inception_distance_mean",
        "IS@24": "inception_score_mean",
        "precision-inception@24": "precision",
        "recall-inception@24": "recall",
    }
    for mine, other in exact.items():
        assert ours[mine] == pytest.approx(theirs[other], rel=1e-5, abs=1e-9), mine


SINGULAR = 1e-3
"""24 samples of 2,048 features: torch-fidelity's zero eigenvalues are noise of 1e-8 each."""


@pytest.mark.slow
def test_a_run_on_a_folder_of_images_has_torch_fidelitys_numbers(
    tmp_path: Path, weights: Path
) -> None:
    as_files(noise(40), tmp_path / "images" / "one")
    data = {"name": "folder", "path": str(tmp_path / "images"), "channels": 3, "size": 16}
    config = tiny_config(
        data=data | {"classes": 1},
        sample={"count": 24},  # too few for a score, which is taken below all the same
        evaluate={"metrics": ALL_METRICS[:-1], "inception": str(weights)},
    )
    run = RunDir(tmp_path / "study" / "run")
    run.write_config(config)
    assert execute(run) == EXIT_DONE
    with np.load(run.samples / "samples.npz") as arrays:
        samples = arrays["arr_0"]
    drawn = as_files(samples, tmp_path / "drawn")
    train = noise(40)[np.arange(40) % 10 != 9]
    real = as_files(train, tmp_path / "train")
    score = inception_score(inception.load(weights, CPU).features(samples).logits).value
    ours = values(run, "run") | {"IS@24": score}
    same(ours, theirs(drawn, real, **with_inception(weights)), SINGULAR)
    row = read_rows(run.path / "evaluation.jsonl")[0]
    assert (row["extractor"], row["weights"]) == ("inception", checksum(weights)[:16])
    assert (row["metric"], row["reference"]["count"]) == ("FID@24", 36)


def evaluated(tmp_path: Path, config: RunConfig, samples: np.ndarray) -> RunDir:
    """A run whose samples are there, measured."""
    run = RunDir(tmp_path / "study" / "run")
    run.write_config(config)
    run.samples.mkdir()
    labels = np.arange(len(samples))
    np.savez_compressed(run.samples / "samples.npz", arr_0=samples, arr_1=labels)
    evaluate_run(config, Session(run), CPU)
    return run


def of_latents(folder: Path, extractor: Extractor) -> tuple[dict[str, Any], Path, Path]:
    """Our numbers for samples of a run on latents, and the two sets of images as files."""
    samples, real = noise(24, 200), noise(40)
    found = statistics(extractor.features(real).pooled)
    file = folder / "VIRTUAL_imagenet128_labeled.npz"
    np.savez(file, arr_0=real, arr_1=np.arange(40), mu=found.mean, sigma=found.covariance)
    data = {"name": "imagenet128-latents", "path": str(folder)}
    sample = {"count": 24, "labels": "even"}
    config = tiny_config(data=data, sample=sample, evaluate={"metrics": ALL_METRICS})
    run = evaluated(folder, config, samples)
    assert not values(run, "floor")
    return values(run, "run"), as_files(samples, folder / "a"), as_files(real, folder / "b")


@pytest.mark.slow
def test_latents_against_adms_file_have_torch_fidelitys_numbers(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPDIT_INCEPTION", str(weights))
    ours, drawn, real = of_latents(tmp_path, inception.load(weights, CPU))
    same(ours, theirs(drawn, real, **with_inception(weights)), SINGULAR)


class OneLayer(FeatureNetwork):
    """16 features and 5 classes of what is bright where."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pooled, self.classes = torch.nn.Linear(8 * 8 * 3, 16), torch.nn.Linear(16, 5)

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = torch.nn.functional.adaptive_avg_pool2d(images.expand(-1, 3, -1, -1) / 255, 8)
        pooled = self.pooled(small.flatten(1))
        return pooled, 50 * self.classes(pooled)


class OneLayerOfTheirs(FeatureExtractorBase):  # type: ignore[misc]
    """The same network as torch-fidelity takes one."""

    def __init__(self, name: str, features_list: list[str], **_: object) -> None:
        super().__init__(name, features_list)
        self.network = OneLayer()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "pooled", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "pooled"

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = dict(zip(("pooled", "logits"), self.network.look(images), strict=True))
        return tuple(found[name] for name in self.features_list)


def test_what_comes_after_the_network_has_torch_fidelitys_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY
    monkeypatch.setitem(registry, "one-layer", OneLayerOfTheirs)
    monkeypatch.setenv("MPDIT_INCEPTION", __file__)  # any file: it is not opened
    mine = Extractor("inception", "0" * 16, "none", OneLayer(), CPU, batch_size=7)
    monkeypatch.setattr(extractors, "load", lambda *_: mine)
    ours, drawn, real = of_latents(tmp_path, mine)
    same(ours, theirs(drawn, real, feature_extractor="one-layer"), 1e-5)


def test_inceptions_features_are_torch_fidelitys(tmp_path: Path, weights: Path) -> None:
    images = noise(3)
    kwargs = {**with_inception(weights), "cuda": False, "verbose": False, "save_cpu_ram": True}
    layers = list(inception.LAYERS)
    network = create_feature_extractor(kwargs.pop("feature_extractor"), layers, **kwargs)
    files = as_files(images, tmp_path / "images")
    found = extract_featuresdict_from_input_id(1, network, input1=str(files), **kwargs)
    for mine, layer in zip(inception.load(weights, CPU).features(images), layers, strict=True):
        np.testing.assert_allclose(mine, found[layer], rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 1), (33, 20, 3), (320, 320, 3)])
def test_inception_takes_8_bit_images_of_any_size_and_grey_ones(
    shape: tuple[int, int, int], weights: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    extractor = inception.load(weights, CPU)
    found = extractor.features(images)
    assert found.pooled.shape == (2, 2048)
    assert found.logits.shape == (2, 1008)
    assert np.isfinite(found.pooled).all()
    in_colour = extractor.features(np.repeat(images, 3 // shape[-1], axis=-1))
    assert np.array_equal(found.pooled, in_colour.pooled)
