"""Latent stores from images through a tiny VAE with random weights, and from official files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit.data import __main__ as command
from mpdit.data.images import ImageFolder, centre_crop
from mpdit.data.latents import LatentStore, read_manifest
from mpdit.disk import stamp
from mpdit.encoding import build, encoders
from mpdit.encoding.officiallatents import OFFICIAL
from tests.helpers.images import class_folders

SIZE = 16


@pytest.fixture(scope="module")
def vae(vae: Path) -> str:
    return str(vae)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three classes of 10 images of 40×30 random pixels."""
    return class_folders(tmp_path / "pictures", ("cat", "ant", "bee"), 10, (30, 40, 3))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SMALLEST_SHARD", 8)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mpdit.data", *map(str, arguments)])
    return command.main()


def test_a_store_holds_what_the_vae_says_of_every_image_and_its_mirror(
    tmp_path, pictures, vae, monkeypatch
):
    options = ("--vae", vae, "--size", SIZE, "--batch-size", 4)
    assert run(monkeypatch, "encode", pictures, tmp_path / "store", *options) == 0
    store = LatentStore(tmp_path / "store")
    assert store.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    model, folder = encoders.load_vae(vae), ImageFolder.scan(pictures)
    assert folder.classes == ("ant", "bee", "cat")
    for index in (0, 7, 29):
        pixels = folder.pixels(index, SIZE, 3).astype(np.float32) / 127.5 - 1
        for flip, image in enumerate((pixels, pixels[..., ::-1].copy())):
            posterior = model.encode(torch.from_numpy(image[None])).latent_dist
            stored = store.read(np.array([index]), np.array([flip]))[0].astype(np.float32)
            assert np.allclose(stored[0], posterior.mean[0], rtol=2e-3, atol=1e-4)
            assert np.allclose(stored[1], posterior.std[0], rtol=2e-3, atol=1e-4)
    assert store.manifest.source.vae_hash
    assert store.manifest.class_names == ("ant", "bee", "cat")
    assert run(monkeypatch, "verify", tmp_path / "store") == 0


def test_an_image_that_cannot_be_read_is_named_before_anything_is_encoded(
    tmp_path, pictures, vae, monkeypatch, capsys
):
    broken = pictures / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:500])
    arguments = ("encode", pictures, tmp_path / "store", "--vae", vae, "--size", SIZE)
    assert run(monkeypatch, *arguments) == 2
    assert f"error: {broken} cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_an_image_that_breaks_after_the_check_is_named_and_what_was_done_is_kept(
    tmp_path, pictures, vae, monkeypatch, capsys
):
    monkeypatch.setattr(command, "check_images", lambda *_: None)
    broken = pictures / "cat" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:500])
    command_line = ("encode", pictures, tmp_path / "store", "--vae", vae, "--size", SIZE)
    assert run(monkeypatch, *command_line) == 2
    assert f"error: {broken} cannot be read" in capsys.readouterr().err
    made = (tmp_path / "store" / "moments-00001.npy").stat().st_mtime_ns
    broken.write_bytes(whole)
    assert run(monkeypatch, *command_line) == 0
    assert (tmp_path / "store" / "moments-00001.npy").stat().st_mtime_ns == made


def test_a_broken_image_is_named_before_anything_is_encoded(
    tmp_path, pictures, vae, monkeypatch, capsys
):
    broken = pictures / "cat" / "3.png"  # image 23 of 30, in the third of four shards
    broken.write_bytes(b"no image")
    command_line = ("encode", pictures, tmp_path / "store", "--vae", vae, "--size", SIZE)
    assert run(monkeypatch, *command_line) == 2
    assert str(broken) in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("moments-*"))
    broken.unlink()
    assert run(monkeypatch, *command_line) == 0
    assert LatentStore(tmp_path / "store").labels.tolist() == [0] * 10 + [1] * 10 + [2] * 9
    assert run(monkeypatch, "verify", tmp_path / "store") == 0


def test_replaced_pixels_under_old_names_do_not_count_as_done(
    tmp_path, pictures, vae, monkeypatch, capsys
):
    command_line = ("encode", pictures, tmp_path / "store", "--vae", vae, "--size", SIZE)
    assert run(monkeypatch, *command_line) == 0
    file = pictures / "bee" / "2.png"  # image 12, in the second shard
    os.utime(file)  # as it was
    assert run(monkeypatch, *command_line) == 0
    Image.new("RGB", (40, 30)).save(file)
    capsys.readouterr()
    assert run(monkeypatch, *command_line) == 2
    assert "made of other images (images of shard 1 have changed)" in capsys.readouterr().err
    (tmp_path / "store" / "manifest.json").unlink()
    first, second = (tmp_path / "store" / f"moments-0000{n}.npy" for n in (0, 1))
    before = first.stat().st_mtime_ns, second.stat().st_mtime_ns
    assert run(monkeypatch, *command_line) == 0
    assert first.stat().st_mtime_ns == before[0]
    assert second.stat().st_mtime_ns > before[1]
    assert run(monkeypatch, "encode", pictures, tmp_path / "new", *command_line[3:]) == 0
    assert read_manifest(tmp_path / "new") == read_manifest(tmp_path / "store")


def test_images_that_change_while_they_are_encoded_are_not_recorded(
    tmp_path, pictures, vae, monkeypatch, capsys
):
    monkeypatch.setattr(stamp, "SETTLED", -1e9)
    encode = encoders.VaeEncoder._encode

    def changing(*given):
        Image.new("RGB", (40, 30)).save(pictures / "ant" / "0.png")
        return encode(*given)

    monkeypatch.setattr(encoders.VaeEncoder, "_encode", changing)
    command_line = ("encode", pictures, tmp_path / "store", "--vae", vae, "--size", SIZE)
    assert run(monkeypatch, *command_line) == 2
    assert "images 0 to 7 were changed while they were encoded" in capsys.readouterr().err
    monkeypatch.setattr(encoders.VaeEncoder, "_encode", encode)
    assert run(monkeypatch, *command_line) == 0


@pytest.mark.long
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tmp_path, pictures, vae, monkeypatch):
    code = "import sys; from mpdit.encoding import build, encoders; build.SMALLEST_SHARD = 2;"
    slow = (
        "import time; first = encoders.VaeEncoder._encode;"
        "encoders.VaeEncoder._encode = lambda *a: (time.sleep(0.2), first(*a))[1];"
    )
    main = "from mpdit.data.__main__ import main; sys.exit(main())"
    arguments = ["encode", pictures, tmp_path / "store", "--vae", vae, "--size", str(SIZE)]
    process = subprocess.Popen(
        [sys.executable, "-c", code + slow + main, *arguments], stderr=subprocess.PIPE, text=True
    )
    first = tmp_path / "store" / "moments-00001.json"
    deadline = time.monotonic() + 60
    while not first.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == "stopped; the same command resumes from the last whole shard"
    before = first.stat().st_mtime_ns
    monkeypatch.setattr(build, "SMALLEST_SHARD", 2)
    assert run(monkeypatch, *arguments) == 0
    assert first.stat().st_mtime_ns == before
    assert read_manifest(tmp_path / "store").images == 30


@pytest.mark.long
def test_two_processes_make_the_same_store_as_one(tmp_path, pictures, vae, monkeypatch):
    code = (
        "import sys; from mpdit.encoding import build; build.SMALLEST_SHARD = 8;"
        "from mpdit.data.__main__ import main; sys.exit(main())"
    )
    options = ("--vae", vae, "--size", str(SIZE))

    def start(rank: int) -> subprocess.Popen[bytes]:
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        arguments = ["encode", pictures, tmp_path / "two", *options]
        environment = os.environ | place | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)

    started = [start(0), start(1)]
    assert run(monkeypatch, "encode", pictures, tmp_path / "one", *options) == 0
    assert [process.wait(timeout=100) for process in started] == [0, 0]
    assert read_manifest(tmp_path / "one") == read_manifest(tmp_path / "two")


def test_a_hugging_face_data_set_makes_the_store_that_its_images_in_a_folder_make(
    tmp_path, pictures, vae, monkeypatch
):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    folder = ImageFolder.scan(pictures)
    rows = {
        "picture": [str(pictures / name) for name in folder.names],
        "animal": folder.labels.tolist(),
    }
    features = datasets.Features(
        picture=datasets.Image(), animal=datasets.ClassLabel(names=list(folder.classes))
    )
    held = datasets.Dataset.from_dict(rows, features)
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: (asked.append((name, split)), held)[1]
    )
    for source in ("hf:some/animals", "hf:some/animals:test", pictures):
        store = tmp_path / str(source).replace("/", "-")
        assert run(monkeypatch, "encode", source, store, "--vae", vae, "--size", SIZE) == 0
    assert asked == [("some/animals", "train"), ("some/animals", "test")]
    first, other = (
        read_manifest(tmp_path / str(source).replace("/", "-"))
        for source in ("hf:some/animals", pictures)
    )
    assert first.sha256 == other.sha256
    assert first.source.data == "hf:some/animals:train"
    assert first.class_names == other.class_names == ("ant", "bee", "cat")


def hugging_face(monkeypatch, pictures, columns, **types):
    """A data set of these columns, whatever is asked for; ``picture`` is an image's number."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    names = ImageFolder.scan(pictures).names
    rows = columns | {
        "picture": [n if n is None else str(pictures / names[n]) for n in columns["picture"]]
    }
    kinds = {"class": datasets.ClassLabel(names=["ant", "bee", "cat"])}
    kinds |= {name: datasets.Value(name) for name in ("int64", "int8", "string")}
    features = datasets.Features(
        picture=datasets.Image(), **{name: kinds[kind] for name, kind in types.items()}
    )
    held = datasets.Dataset.from_dict(rows, features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: held)


@pytest.mark.parametrize(
    ("columns", "types", "message"),
    [
        ({"animal": [0, -1, 2]}, {"animal": "class"}, "row 1 has label -1; labels go from 0 to 2"),
        ({"animal": [0, 1, None]}, {"animal": "class"}, "1 of 3 rows have no animal, row 2 is the"),
        ({"picture": [0, None, 2], "animal": [0, 1, 2]}, {"animal": "class"}, "no picture, row 1"),
        ({"label": [0, -1, 2]}, {"label": "int8"}, "row 1 has label -1; labels go from 0 to 2"),
        ({"a": [0, 1, 2], "b": [5, 6, 7]}, {"a": "int64", "b": "int64"}, "none is called label"),
        ({"animal": ["a", "b", "c"]}, {"animal": "string"}, "labels (ClassLabel or integer)"),
    ],
)
def test_a_hugging_face_set_with_rows_that_cannot_be_trained_on_is_refused_at_once(
    tmp_path, pictures, vae, monkeypatch, capsys, columns, types, message
):
    hugging_face(monkeypatch, pictures, {"picture": [0, 11, 22]} | columns, **types)
    assert run(monkeypatch, "encode", "hf:animals", tmp_path / "store", "--vae", vae) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("columns", "types", "classes"),
    [
        ({"age": [9, 8, 7], "label": [0, 3, 1]}, {"age": "int64", "label": "int64"}, 4),
        ({"kind": [0, 1, 0]}, {"kind": "int8"}, 2),
        ({"animal": [0, 1, 0]}, {"animal": "class"}, 3),
    ],
)
def test_plain_integers_are_labels_and_classes_without_images_are_counted(
    tmp_path, pictures, vae, monkeypatch, capsys, columns, types, classes
):
    hugging_face(monkeypatch, pictures, {"picture": [0, 11, 22]} | columns, **types)
    options = ("--vae", vae, "--size", SIZE)
    assert run(monkeypatch, "encode", "hf:animals", tmp_path / "store", *options) == 0
    store = LatentStore(tmp_path / "store")
    assert store.manifest.classes == classes
    assert store.labels.tolist() == list(columns.values())[-1]
    said = capsys.readouterr().out
    assert (f"{classes} classes (1 without images)" in said) == (classes > 2)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    folder = tmp_path / "official"
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    means = torch.randn((20, 4, 8, 8), generator=random)
    torch.save(means, folder / "posterior_means.pt")
    torch.save(torch.full_like(means, 0.25), folder / "posterior_stds.pt")
    torch.save(torch.arange(20) % 5, folder / "labels.pt")
    stats = {"mean": torch.arange(4.0), "std": torch.arange(4.0) + 1}
    torch.save(stats, folder / "stats.pt")
    return folder


def test_official_latents_are_taken_over_with_their_own_statistics(tmp_path, official, monkeypatch):
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 0
    store = LatentStore(tmp_path / "store")
    rows = np.arange(20)
    moments = store.read(rows, np.zeros_like(rows))
    assert (moments[:, 0] == torch.load(official / "posterior_means.pt").half().numpy()).all()
    assert (moments[:, 1] == 0.25).all()
    assert (store.manifest.mean, store.manifest.std) == ((0, 1, 2, 3), (1, 2, 3, 4))
    assert (store.manifest.flips, store.manifest.classes) == (1, 5)
    assert store.manifest.class_names is None


@pytest.mark.parametrize("name", OFFICIAL[1:])
@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_an_official_file_that_is_missing_or_damaged_is_named(
    tmp_path, official, monkeypatch, capsys, name, damage
):
    file = official / name
    file.unlink() if damage == "gone" else file.write_bytes(file.read_bytes()[:300])
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "stats",
            {"average": torch.zeros(4)},
            "stats.pt is not a dict of the tensors mean and std",
        ),
        ("stats", {"mean": 0.0, "std": 1.0}, "stats.pt is not a dict of the tensors mean and std"),
        ("posterior_means", {}, "posterior_means.pt holds no tensor: dict"),
        ("posterior_means", torch.zeros(20, 4, 8, 6), "(20, 4, 8, 6) and (20, 4, 8, 8), not both"),
        ("labels", [0] * 20, "labels.pt holds no tensor: list"),
        ("labels", print, "labels.pt is damaged: it holds more than tensors, and pickled code is"),
        ("labels", torch.zeros(0), "labels.pt holds (0,) labels for 20 latents"),
        ("labels", torch.tensor(3), "labels.pt holds () labels for 20 latents"),
        ("labels", torch.full((20,), 0.7), "holds labels that are not integers (image 0: 0.7)"),
        ("labels", torch.full((20,), torch.nan), "labels that are not integers (image 0: nan"),
        ("stats", {"mean": torch.zeros(4), "std": torch.zeros(4)}, "standard deviations above 0"),
        ("stats", {"mean": torch.zeros(4) / 0, "std": torch.ones(4)}, "have to be finite"),
        ("stats", {"mean": torch.zeros(3), "std": torch.ones(4)}, "3 means and 4 standard dev"),
        ("posterior_stds", torch.full((20, 4, 8, 8), -3.0), "image 0 has negative values: log-var"),
        ("posterior_means", torch.full((20, 4, 8, 8), torch.nan), "means.pt: image 0 is not fin"),
        ("posterior_means", torch.zeros(0, 4, 8, 8), "(0, 4, 8, 8) and (20, 4, 8, 8), not both"),
        ("posterior_means", torch.zeros(20, 4, 8, 8) * 1j, "holds a tensor of torch.complex64"),
        ("labels", torch.arange(20) - 1, "labels.pt holds labels below 0"),
        ("posterior_means", torch.full((20, 4, 8, 8), 1e6), "latents of image 0 (of 8 in shard 0)"),
    ],
)
def test_an_official_file_that_holds_something_else_is_named(
    tmp_path, official, monkeypatch, capsys, name, content, message
):
    torch.save(content, official / f"{name}.pt")
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert "weights_only" not in said  # torch's advice on pickled code


def test_official_tensors_that_require_grad_are_taken(tmp_path, official, monkeypatch):
    means = torch.load(official / "posterior_means.pt")
    torch.save(means.requires_grad_(), official / "posterior_means.pt")
    torch.save(torch.arange(20.0)[:, None] % 5, official / "labels.pt")
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 0
    assert LatentStore(tmp_path / "store").labels.tolist() == [n % 5 for n in range(20)]


@pytest.mark.parametrize("name", ["posterior_means", "posterior_stds", "stats"])
def test_other_official_latents_with_the_same_labels_do_not_count_as_done(
    tmp_path, official, monkeypatch, capsys, name
):
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 0
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 0
    held = torch.load(official / f"{name}.pt")
    changed = {**held, "mean": held["mean"] + 1} if name == "stats" else held + 1
    torch.save(changed, official / f"{name}.pt")
    capsys.readouterr()
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 2
    said = capsys.readouterr().err
    assert "is finished, and made of other images (content " in said
    (tmp_path / "store" / "manifest.json").unlink()
    assert run(monkeypatch, "encode", official, tmp_path / "store") == 2
    assert "none of its finished shards is of these" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere", (), "there is no folder"),
        ("empty", (), "no images (.bmp"),
        ("pictures", ("--size", 15), "--size 15 is not a multiple of 2"),
        ("pictures", ("--vae", "empty"), "cannot load the VAE empty"),
        ("hf:nosuch", (), "cannot load the Hugging Face data set nosuch, split train: it is away"),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_what_cannot_be_encoded_is_one_message_and_status_2(
    tmp_path, vae, monkeypatch, capsys, source, options, message
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    if source.startswith("hf:"):
        datasets = pytest.importorskip("datasets", reason="datasets is not installed")

        def away(*_: object, **__: object) -> None:
            raise ConnectionError("it is away\nand more of it")

        monkeypatch.setattr(datasets, "load_dataset", away)
    assert run(monkeypatch, "encode", source, "store", "--vae", vae, *options) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert not Path("store").exists()


def test_a_library_that_is_missing_is_named_with_how_to_install_it(
    tmp_path, pictures, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert run(monkeypatch, "encode", pictures, tmp_path / "store") == 2
    assert "diffusers: pip install 'mpdit[latents]'" in capsys.readouterr().err


def test_the_middle_square_is_taken_and_large_images_are_averaged():
    pixels = np.zeros((64, 128), np.uint8)
    pixels[:, 32:96] = np.indices((64, 64)).sum(0) % 2 * 200  # a checkerboard in the middle
    cropped = np.asarray(centre_crop(Image.fromarray(pixels), 32))
    assert cropped.shape == (32, 32)
    assert (cropped == 100).all()
