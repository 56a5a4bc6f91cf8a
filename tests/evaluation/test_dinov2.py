"""DINOv2: its network against torch's own layers, and its features against torch-fidelity's.

The published weights are 1.2 GB: a small network of the same form, with random ones, stands in.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from mpdit.catalogue.methods import DINOV2
from mpdit.config import EvaluateConfig
from mpdit.data.latents import checksum
from mpdit.data.preflight import check_evaluable, weights_file
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.evaluation.evaluation import evaluate_run
from mpdit.evaluation.extractors import dinov2
from mpdit.evaluation.extractors.dinov2 import EncoderBlock, VisionTransformer
from mpdit.runtime.session import Session
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")
SMALL = (32, 2, 4)


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("MPDIT_DINOV2", raising=False)


def random_network() -> VisionTransformer:
    network = VisionTransformer(*SMALL)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return network.requires_grad_(False)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of a network that is as small as the extractor now takes it to be."""
    monkeypatch.setattr(dinov2, "SIZE", SMALL)
    file = tmp_path / "weights.pth"
    torch.save(random_network().state_dict(), file)
    return file


def test_missing_weights_are_one_message_with_the_file_and_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_evaluable(tiny_config(evaluate={"extractor": "dinov2"}))
    place = tmp_path / "torch" / "hub" / "checkpoints" / "dinov2_vitl14_pretrain.pth"
    for part in (str(place), DINOV2.url, "1,218 MB", "MPDIT_DINOV2", "evaluate.dinov2"):
        assert part in str(error.value)


def test_weights_are_where_the_config_says_else_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, named = tmp_path / "told.pth", tmp_path / "named.pth"
    told.touch()
    named.touch()
    monkeypatch.setenv("MPDIT_DINOV2", str(named))
    monkeypatch.setenv("MPDIT_INCEPTION", str(tmp_path / "another.pth"))
    assert weights_file(EvaluateConfig(extractor="dinov2")) == named
    assert weights_file(EvaluateConfig(extractor="dinov2", dinov2=str(told))) == told


def test_a_score_of_classes_is_refused_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    evaluate = {"extractor": "dinov2", "dinov2": str(tmp_path / "w.pth")}
    asked = tiny_config(
        sample={"count": 200}, evaluate={**evaluate, "metrics": ["fd", "inception_score"]}
    )
    with pytest.raises(ConfigError, match="DINOv2 has no classes"):
        check_evaluable(asked)


def test_a_file_of_something_else_is_not_taken_for_dinov2(tmp_path: Path, weights: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"run": print}, file)  # a pickle that calls something is not even unpickled
    with pytest.raises(ConfigError, match="does not hold the weights of DINOv2"):
        dinov2.load(file, CPU)
    state = torch.load(weights)
    del state["cls_token"]
    torch.save(state, file)
    with pytest.raises(ConfigError, match="does not hold the weights of DINOv2"):
        dinov2.load(file, CPU)


def test_the_network_has_the_form_of_the_published_weights() -> None:
    with torch.device("meta"):
        shapes = {
            k: tuple(v.shape) for k, v in VisionTransformer(*dinov2.SIZE).state_dict().items()
        }
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 304_368_640
    assert shapes["pos_embed"] == (1, 1370, 1024)
    assert shapes["patch_embed.proj.weight"] == (1024, 3, 14, 14)
    of_block = "norm1.weight attn.qkv.bias attn.proj.weight ls1.gamma norm2.bias mlp.fc1.weight"
    assert {f"blocks.23.{name}" for name in of_block.split()} < shapes.keys()
    assert {"cls_token", "mask_token", "norm.weight", "blocks.0.ls2.gamma"} < shapes.keys()


def test_a_block_is_torchs_encoder_layer_with_the_scales_in_its_weights() -> None:
    width, _, heads = SMALL
    block = random_network().blocks[0]
    assert isinstance(block, EncoderBlock)
    theirs = torch.nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    own, first, second = block.state_dict(), block.ls1["gamma"], block.ls2["gamma"]
    state = {
        "self_attn.in_proj_weight": own["attn.qkv.weight"],
        "self_attn.in_proj_bias": own["attn.qkv.bias"],
        "self_attn.out_proj.weight": first[:, None] * own["attn.proj.weight"],
        "self_attn.out_proj.bias": first * own["attn.proj.bias"],
        "linear1.weight": own["mlp.fc1.weight"],
        "linear1.bias": own["mlp.fc1.bias"],
        "linear2.weight": second[:, None] * own["mlp.fc2.weight"],
        "linear2.bias": second * own["mlp.fc2.bias"],
        **{key: value for key, value in own.items() if key.startswith("norm")},
    }
    theirs.load_state_dict(state)
    x = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(x), theirs(x))


def cubic(places: int, knots: int, step: float) -> Tensor:
    """Keys' cubic convolution (a = −3/4), edges repeated: places × knots."""
    rows = torch.zeros(places, knots, dtype=torch.float64)
    for i in range(places):
        at = (i + 0.5) * step - 0.5
        for knot in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            s = abs(at - knot)
            near = 1.25 * s**3 - 2.25 * s**2 + 1
            far = -0.75 * s**3 + 3.75 * s**2 - 6 * s + 3
            rows[i, min(max(knot, 0), knots - 1)] += near if s <= 1 else far
    return rows


def test_positions_are_interpolated_at_the_published_places() -> None:
    network = random_network()
    found = network._positions(16)[0]
    grid = network.pos_embed[0, 1:].view(37, 37, -1).double()
    along = cubic(16, 37, 37 / 16.1)
    expected = torch.einsum("ai,bj,ijc->abc", along, along, grid).reshape(256, -1)
    torch.testing.assert_close(found[1:].double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(found[0], network.pos_embed[0, 0])


@pytest.mark.parametrize("shape", [(8, 8, 1), (33, 20, 3), (300, 300, 3)])
def test_features_are_those_of_torch_fidelitys_extractor(
    shape: tuple[int, int, int], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "load", lambda *_: random_network())  # what it would download
    theirs = FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"])
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    found = dinov2.load(weights, CPU).features(images)
    in_colour = torch.from_numpy(np.repeat(images, 3 // shape[-1], axis=-1)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(found.pooled, theirs(in_colour)[0], rtol=1e-5, atol=1e-6)
    assert found.logits.shape == (3, 0)


def test_a_run_is_measured_by_fd_dinov2_and_never_called_fid(tmp_path: Path, weights: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images" / "one"
    folder.mkdir(parents=True)
    for number in range(40):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    data = {"name": "folder", "path": str(folder.parent), "channels": 3, "size": 16, "classes": 1}
    config = tiny_config(
        data=data,
        sample={"count": 24},
        evaluate={
            "extractor": "dinov2",
            "dinov2": str(weights),
            "metrics": ["fd", "kid", "precision_recall"],
        },
    )
    check_evaluable(config)
    run = RunDir(tmp_path / "study" / "run")
    run.write_config(config)
    run.samples.mkdir()
    samples = rng.integers(0, 200, (24, 16, 16, 3), np.uint8)
    np.savez_compressed(run.samples / "samples.npz", arr_0=samples, arr_1=np.zeros(24, np.int64))
    for _ in range(2):  # again, from the features that are kept
        evaluate_run(config, Session(run), CPU)
        rows = read_rows(run.path / "evaluation.jsonl")
        assert [row["metric"] for row in rows if row["role"] == "run"] == [
            "FD-dinov2@24", "KD-dinov2@24", "precision-dinov2@24", "recall-dinov2@24",
        ]  # fmt: skip
        assert all(np.isfinite(row["value"]) for row in rows)
        assert (rows[0]["extractor"], rows[0]["weights"]) == ("dinov2", checksum(weights)[:16])
        (run.path / "evaluation.jsonl").unlink()
