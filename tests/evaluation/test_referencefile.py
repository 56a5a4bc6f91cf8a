"""The command that makes a file of real images: what the run compares with, whole or not at all."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpdit.config import DataConfig, EvaluateConfig, make_run
from mpdit.data import __main__ as command
from mpdit.data import datasets
from mpdit.data.images import ImageFolder
from mpdit.data.preflight import check_evaluable
from mpdit.evaluation import references
from mpdit.evaluation.extractors import classifier
from mpdit.evaluation.metrics import frechet_distance, statistics
from tests.helpers.images import CPU, class_folders

SIZE = 16


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: object) -> int:
    line = ["mpdit.data", "reference", str(out), "--data", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", line)
    return command.main()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of 10 images."""
    return class_folders(tmp_path / "pictures", ("ant", "bee"), 10, (30, 40, 3))


def test_a_data_sets_train_split_is_written_with_its_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.npz"
    assert run(monkeypatch, out, "digits", "--extractor", "digits") == 0
    assert capsys.readouterr().out == f"{out}: 1,498 images of 8×8×1, mu and sigma of digits\n"
    train = datasets.load(DataConfig(name="digits"), "train")
    extractor = classifier.load("digits", CPU)
    with np.load(out) as held:
        assert sorted(held) == ["arr_0", "arr_1", "extractor", "mu", "sigma"]
        assert (held["arr_0"] == datasets.to_uint8(train.pixels)).all()
        assert (held["arr_1"] == train.labels).all()
        assert held["extractor"].tolist() == ["digits", extractor.weights]
    expected = statistics(extractor.features(datasets.to_uint8(train.pixels)).pooled)
    given = references._given(out, references.npz.contents(out), extractor)
    assert given is not None
    assert frechet_distance(given, expected) == pytest.approx(0, abs=1e-6)


def test_of_a_folder_the_train_split_is_taken_in_the_size_that_is_asked_for(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, tmp_path / "x.npz", pictures, "--size", SIZE) == 0
    folder = ImageFolder.scan(pictures).split("train")
    with np.load(tmp_path / "x.npz") as held:
        assert held["arr_0"].shape == (18, SIZE, SIZE, 3)
        assert (held["arr_0"][17] == folder.pixels(17, SIZE, 3).transpose(1, 2, 0)).all()
        assert held["arr_1"].tolist() == [0] * 9 + [1] * 9


def test_a_run_on_latents_is_compared_with_all_images_that_were_encoded(
    tmp_path: Path, pictures: Path, vae: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    line = ["mpdit.data", "encode", str(pictures), str(store), "--vae", str(vae), "--size", "16"]
    monkeypatch.setattr(sys, "argv", line)
    assert command.main() == 0
    out = store / "reference.npz"
    assert run(monkeypatch, out, pictures, "--store", store) == 0
    weights = tmp_path / "inception.pth"
    weights.touch()
    tree = {
        "model": {"depth": 1, "width": 16, "heads": 2, "patch_size": 2},
        "data": {
            "name": "latents", "path": str(store), "channels": 4, "size": 8, "classes": 2
        },
        "train": {"steps": 1},
        "evaluate": {"inception": str(weights), "metrics": ["fd", "kid"]},
    }  # fmt: skip
    check_evaluable(make_run(tree))
    with np.load(out) as held:
        assert held["arr_0"].shape == (20, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "--size", 8), "nowhere."),
        (("pictures",), "give --size, the side of the images in pixels"),
        (("pictures", "--size", 0), "give --size, the side of the images in pixels"),
        (("pictures", "--size", 8, "--extractor", "digits"), "takes grey images, but these have"),
        (("pictures", "--size", 8, "--extractor", "digit"), "Did you mean"),
        (("digits", "--size", 8), "digits has its own size, and no store"),
        (("pictures", "--store", "pictures"), "pictures is not a latent store"),
        (("broken", "--size", 8), "bee/3.png cannot be read as an image"),
        (("one", "--size", 8), "needs at least 2 real images to compare with, not 1"),
    ],
)
def test_what_cannot_be_written_is_one_message_and_leaves_nothing(
    tmp_path: Path,
    pictures: Path,
    arguments: tuple[object, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "broken":
        pictures.rename("broken")
        Path("broken/bee/3.png").write_bytes(b"no image")
    Path("one").mkdir()
    Image.new("RGB", (9, 9)).save("one/0.png")
    out = tmp_path / "out"
    out.mkdir()
    assert run(monkeypatch, out / "x.npz", *arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert list(out.iterdir()) == []


def test_images_that_a_store_was_not_encoded_from_are_refused(
    tmp_path: Path,
    pictures: Path,
    vae: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    line = ["mpdit.data", "encode", str(pictures), str(store), "--vae", str(vae), "--size", "16"]
    monkeypatch.setattr(sys, "argv", line)
    assert command.main() == 0
    assert run(monkeypatch, tmp_path / "x.npz", pictures, "--store", store, "--size", 8) == 2
    assert f"--size 8: the images of {store} have 16" in capsys.readouterr().err
    (pictures / "ant" / "0.png").unlink()
    assert run(monkeypatch, tmp_path / "x.npz", pictures, "--store", store) == 2
    assert "was not encoded from these images: it holds 20 of 2" in capsys.readouterr().err


def test_a_file_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.npz").write_text("mine")
    assert run(monkeypatch, tmp_path / "x.npz", "digits") == 2
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "x.npz").read_text() == "mine"


def test_ctrl_c_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_pixels: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "to_uint8", stopped)
    assert run(monkeypatch, tmp_path / "x.npz", "digits") == 130
    assert capsys.readouterr().err.strip() == "stopped; nothing was written"
    assert list(tmp_path.iterdir()) == []


def test_the_statistics_of_a_made_file_are_only_for_its_extractor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, tmp_path / "x.npz", "digits", "--extractor", "digits") == 0
    evaluate = EvaluateConfig(extractor="fashion-mnist")
    with pytest.raises(references.ConfigError, match="features of digits, not of fashion-mnist"):
        references.check_reference(tmp_path / "x.npz", evaluate)
