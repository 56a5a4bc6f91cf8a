"""Real images: found before anything is trained, read once and in batches, cached by content."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpdit.config import DataConfig, EvaluateConfig, RunConfig, read_run
from mpdit.data.images import ImageFolder
from mpdit.data.preflight import check_evaluable, reference_file
from mpdit.disk import npz, stamp
from mpdit.errors import ConfigError
from mpdit.evaluation import features, references
from mpdit.evaluation.extractors import classifier
from mpdit.evaluation.extractors.extractor import Extractor, Features
from mpdit.evaluation.metrics import Reference, accumulate, frechet_distance, statistics
from mpdit.evaluation.realimages import Batch, in_proportion, of_split
from mpdit.sampling.drawing import Drawing
from mpdit.study.submission import check_plan
from tests.helpers.images import ADM, CPU, bitmaps, folder_data, grey
from tests.helpers.latents import make_store
from tests.helpers.plans import load_plan
from tests.helpers.tiny import tiny_config

FD = EvaluateConfig(extractor="digits")
KID = EvaluateConfig(extractor="digits", metrics=("fd", "kid"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path / "cache"))


def unwatched(batches: Iterable[Batch], _count: int) -> Iterator[Batch]:
    yield from batches


def load(data: DataConfig, evaluate: EvaluateConfig, extractor: Extractor) -> Reference:
    return references.load(data, evaluate, extractor, unwatched)


def latents_config(path: Path, **evaluate: Any) -> RunConfig:
    assert DataConfig(name="imagenet128-latents").spec.extractor == "inception"
    data = {"name": "imagenet128-latents", "path": str(path)}
    return tiny_config(data=data, evaluate=evaluate)


def pictures(folder: Path, count: int, size: int = 8) -> np.ndarray:
    """``count`` grey noise images in a folder of one class; those of its train split."""
    images = np.random.default_rng(0).integers(0, 256, (count, size, size), np.uint8)
    (folder / "a").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "a" / f"{number:04}.png")
    return images[np.arange(count) % 10 != 9, :, :, None]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image file was read."""
    read: Counter[str] = Counter()
    pixels = ImageFolder.pixels

    def counted(self: ImageFolder, index: int, size: int, channels: int) -> np.ndarray:
        read[self.names[index]] += 1
        return pixels(self, index, size, channels)

    monkeypatch.setattr(ImageFolder, "pixels", counted)
    return read


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has just been written counts as old."""
    monkeypatch.setattr(stamp, "SETTLED", -1e9)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("evaluate", [FD, KID])
def test_each_file_of_a_folder_is_read_once_and_then_only_when_it_changes(
    evaluate: EvaluateConfig, tmp_path: Path, reads: Counter[str]
) -> None:
    train = pictures(tmp_path / "images", 120)
    data, extractor = folder_data(tmp_path / "images"), classifier.load("digits", CPU)
    first = load(data, evaluate, extractor)
    assert len(reads) == len(train) == 108
    assert set(reads.values()) == {1}
    expected = statistics(extractor.features(train).pooled)
    assert frechet_distance(first.statistics, expected) == pytest.approx(0, abs=1e-6)
    again = load(data, evaluate, extractor)
    assert reads.total() == 108
    assert again.record == first.record

    file = tmp_path / "images" / "a" / "0000.png"
    os.utime(file, ns=(1, 1))  # it may be another: it is looked at, and is the same
    assert load(data, evaluate, extractor).record == first.record
    assert reads.total() == 2 * 108
    Image.new("L", (8, 8)).save(file)
    assert load(data, evaluate, extractor).record["hash"] != first.record["hash"]


@pytest.mark.usefixtures("settled")
def test_folders_are_told_apart_where_names_sizes_and_times_are_equal(tmp_path: Path) -> None:
    extractor = classifier.load("digits", CPU)
    one, other = (bitmaps(tmp_path / name, seed) for seed, name in enumerate(("one", "other")))
    hashes = [load(data, FD, extractor).record["hash"] for data in (one, other, one)]
    assert hashes[0] == hashes[2] != hashes[1]
    bitmaps(tmp_path / "one", seed=2)  # other images in the place of the same files
    assert load(one, FD, extractor).record["hash"] not in hashes


def test_a_folder_that_has_just_been_written_is_read_again(
    tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, extractor = bitmaps(tmp_path / "images", 0), classifier.load("digits", CPU)
    for times in (1, 2):
        load(data, FD, extractor)
        assert set(reads.values()) == {times}
    monkeypatch.setattr(stamp, "SETTLED", -1e9)
    for _ in range(2):
        load(data, FD, extractor)
    assert set(reads.values()) == {3}


def test_the_hash_of_a_folder_is_that_of_its_pixels_and_labels(tmp_path: Path) -> None:
    train = pictures(tmp_path / "images", 30)
    hashes = set()
    for size in (7, 100):
        images = of_split(folder_data(tmp_path / "images"), "train")
        assert images.hash is None or hashes
        for _ in images.batches(size):
            pass
        hashes.add(images.hash)
    content = train.tobytes() + np.zeros(27, np.int64).tobytes()
    assert hashes == {hashlib.sha256(content).hexdigest()[:16]}


def test_of_a_large_folder_only_a_batch_is_in_memory(tmp_path: Path) -> None:
    train = pictures(tmp_path / "images", 300, size=64)
    data, extractor = folder_data(tmp_path / "images", size=64), grey(batch_size=20)
    load(data, FD, extractor)  # what is imported and set up once
    (tmp_path / "cache").rename(tmp_path / "other")
    tracemalloc.start()
    load(data, FD, extractor)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < train.nbytes / 2


def test_statistics_of_batches_are_those_of_all_features() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(505, 16)) @ rng.normal(size=(16, 16)) + 100).astype(np.float32)
    whole, parts = statistics(rows), accumulate(rows[i : i + 20] for i in range(0, 505, 20))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-9, atol=1e-9)


def test_a_part_of_a_data_set_has_its_proportions_and_a_hash_of_its_own() -> None:
    digits = DataConfig.model_validate("digits")
    whole = of_split(digits, "test")
    part = of_split(digits, "test", lambda labels: in_proportion(labels, 100))
    assert (whole.count, part.count) == (299, 100)
    assert whole.hash != part.hash
    assert of_split(digits, "test", lambda labels: in_proportion(labels, 300)).hash == whole.hash
    labels = np.sort(np.random.default_rng(0).integers(0, 5, 200))
    counts = np.bincount(labels[in_proportion(labels, 100)]) - np.bincount(labels) / 2
    assert np.abs(counts).max() <= 1


def test_a_folder_of_too_few_images_to_split_has_no_floor(tmp_path: Path) -> None:
    pictures(tmp_path / "images", 9)
    data, extractor = folder_data(tmp_path / "images"), classifier.load("digits", CPU)
    drawing = Drawing.of_run(tiny_config())
    assert references.held_out(data, drawing, extractor, unwatched) is None
    Image.new("L", (8, 8), 9).save(tmp_path / "images" / "a" / "9.png")
    held_out = references.held_out(data, drawing, extractor, unwatched)
    assert held_out is not None
    assert held_out.record["count"] == 1


def test_features_are_not_computed_again_because_their_images_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = list[int]()

    def unreadable(*_: object) -> Iterator[Features]:
        calls.append(1)
        raise OSError("disk")

    monkeypatch.setattr(Extractor, "look", unreadable)
    with pytest.raises(OSError, match="disk"):
        load(tiny_config().data, KID, classifier.load("digits", CPU))
    assert len(calls) == 1


def test_a_reference_file_of_statistics_stands_for_the_images_they_were_made_of(
    tmp_path: Path,
) -> None:
    extractor = grey()
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (200, 16, 16, 3), np.uint8)
    mine = extractor.features(rng.integers(0, 200, (100, 16, 16, 3), np.uint8)).pooled
    data = latents_config(tmp_path).data
    file = tmp_path / ADM
    found = statistics(extractor.features(real).pooled)
    distances = []
    for arrays in ({"arr_0": real}, {"mu": found.mean, "sigma": found.covariance}):
        np.savez(file, **arrays)
        reference = load(data, FD, extractor)
        assert reference.record["data"] == file.name
        assert reference.record["count"] == (200 if "arr_0" in arrays else None)
        distances.append(frechet_distance(statistics(mine), reference.statistics))
    assert distances[0] == pytest.approx(distances[1], rel=1e-9)
    with pytest.raises(ConfigError, match="kid and precision_recall need real images"):
        load(data, KID, extractor)
    np.savez(file, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ConfigError, match="statistics of 3 features, digits has 64"):
        load(data, FD, extractor)
    file.write_bytes(b"PK torn")
    with pytest.raises(ConfigError, match=r"data\.path: .* is damaged"):
        load(data, FD, extractor)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_of_images_is_read_in_batches_to_its_last_byte(save: Any, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (45, 6, 5, 3), np.uint8)
    file = tmp_path / "x.npz"
    save(file, arr_0=images)
    batches = list(npz.images(file, 20))
    assert [len(batch) for batch in batches] == [20, 20, 5]
    assert np.array_equal(np.concatenate(batches), images)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(npz.DamagedError):
        list(npz.images(file, 20))


def test_what_is_written_in_batches_is_what_numpy_reads(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (45, 6, 5, 1), np.uint8)
    file, labels = tmp_path / "x.npz", np.arange(45)
    npz.write(file, (images[i : i + 20] for i in range(0, 45, 20)), labels)
    with np.load(file) as arrays:
        assert np.array_equal(arrays["arr_0"], images)
        assert np.array_equal(arrays["arr_1"], labels)


def test_a_missing_reference_is_one_message_with_the_file_and_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        reference_file(latents_config(tmp_path).data)
    assert str(tmp_path / ADM) in str(error.value)
    assert "https://" in str(error.value)


IMAGES = {"arr_0": np.zeros((6, 64, 64, 3), np.uint8)}
BAD_FILES: list[tuple[dict[str, np.ndarray], str]] = [
    ({"mu": np.zeros(64), "sigma": np.eye(64)}, "kid and precision_recall need real images"),
    ({"arr_0": np.zeros((9, 8, 8, 1))}, r"is float64 of shape \(9, 8, 8, 1\): real images are"),
    ({"arr_0": np.zeros((1, 3, 8, 9), np.uint8).T}, "real images are uint8 .* row by row"),
    ({"mu": np.zeros(64)}, "holds mu: neither mu and sigma, nor real images"),
    ({"arr_0": np.zeros((6, 3, 64, 64), np.uint8)}, "images of 3×64×64, but the run's are 64×64×3"),
    ({"arr_0": np.zeros((6, 32, 32, 3), np.uint8)}, "images of 32×32×3, but the run's are 64×64×3"),
    ({"arr_0": np.zeros((6, 64, 64, 1), np.uint8)}, "images of 64×64×1, but the run's are 64×64×3"),
    ({"arr_0": np.zeros((1, 64, 64, 3), np.uint8)}, "needs at least 2 real images .* not 1"),
    (IMAGES | {"mu": np.zeros(64), "sigma": np.eye(63)}, r"mu has shape \(64,\), sigma \(63, 63"),
    (IMAGES | {"mu": np.zeros(9), "sigma": np.full((9, 9), np.inf)}, "mu or sigma is not finite"),
    (IMAGES | {"mu": np.full(9, np.nan), "sigma": np.eye(9)}, "mu or sigma is not finite"),
    (IMAGES | {"mu": np.zeros(9), "sigma": np.tri(9)}, "sigma is not symmetric"),
    (IMAGES | {"mu": np.zeros(9), "sigma": -np.eye(9)}, "sigma has negative variances"),
    (
        IMAGES | {"mu": np.zeros(9), "sigma": np.eye(9), "extractor": np.array(["digits", "ab"])},
        "are features of digits, not of inception",
    ),
    ({}, "is damaged"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_FILES)
def test_a_reference_file_that_will_not_do_is_said_before_training_and_before_submitting(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    weights = tmp_path / "inception.pth"
    weights.touch()
    store = make_store(tmp_path / "store", images=50)
    if arrays:
        np.savez(store / "reference.npz", **arrays)
    else:
        (store / "reference.npz").write_bytes(b"PK torn")
    data = f"{{name: latents, path: {store}, channels: 4, size: 8, classes: 3}}"
    (tmp_path / "grid.yaml").write_text(
        "study: s\n"
        "base:\n"
        f"  data: {data}\n"
        "  model: {depth: 1, width: 16, heads: 2, patch_size: 2}\n"
        "  train: {steps: 1}\n"
        f"  evaluate: {{metrics: [fd, kid], inception: {weights}}}\n"
    )
    plan = load_plan(tmp_path / "grid.yaml")
    said = []
    for check in (
        lambda: check_evaluable(plan.runs[0].config),
        lambda: check_plan(plan, tmp_path / "results"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            check()
        said.append(str(error.value))
    assert said[0] == said[1]


def test_shape_and_bytes_of_the_images_in_a_reference_file_belong_together(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with zipfile.ZipFile(file, "w") as archive, archive.open("arr_0.npy", "w") as array:
        header = {"descr": "|u1", "fortran_order": False, "shape": (9, 8, 8, 3)}
        np.lib.format.write_array_header_1_0(array, header)
        array.write(bytes(8 * 8 * 8 * 3))
    with pytest.raises(npz.DamagedError, match=r"1536 bytes, but its shape is \(9, 8, 8, 3\)"):
        npz.contents(file)


def test_the_images_of_a_reference_file_are_read_to_their_end_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor, file = grey(), make_store(tmp_path / "store", 50) / "reference.npz"
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    np.savez(file, arr_0=images)
    told = {"name": "latents", "path": str(file.parent), "channels": 4, "size": 8, "classes": 3}
    data = DataConfig.model_validate(told)
    references.check(data, FD, extractor)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"reference\.npz is damaged"):
        references.check(data, FD, extractor)
    np.savez(file, arr_0=images)
    monkeypatch.setattr(stamp, "SETTLED", -1e9)
    references.check(data, FD, extractor)
    monkeypatch.delattr(npz, "images")
    references.check(data, FD, extractor)  # it is known to be whole
    mean, covariance = np.zeros(64), np.eye(64)
    np.savez(file, arr_0=images, mu=mean, sigma=covariance)
    references.check(data, FD, extractor)
    np.savez(file, arr_0=images, mu=np.zeros(9), sigma=np.eye(9))
    with pytest.raises(ConfigError, match="statistics of 9 features, digits has 64"):
        references.check(data, FD, extractor)
    made_by = np.array(["digits", "other"])
    np.savez(file, arr_0=images, mu=mean, sigma=covariance, extractor=made_by)
    with pytest.raises(ConfigError, match="digits with weights other, not of digits with weights"):
        references.check(data, FD, extractor)


def test_a_folder_of_too_few_images_to_compare_with_is_said_before_training(tmp_path: Path) -> None:
    pictures(tmp_path / "one", 1)
    pictures(tmp_path / "three", 3)
    config = tiny_config(data=folder_data(tmp_path / "one").model_dump(), evaluate=FD.model_dump())
    with pytest.raises(ConfigError, match=r"one: .* covariance needs at least 2 .* not 1"):
        check_evaluable(config)
    config = config.model_copy(update={"data": folder_data(tmp_path / "three")})
    check_evaluable(config)
    judge = EvaluateConfig(extractor="digits", metrics=("precision_recall",))
    with pytest.raises(ConfigError, match=r"three: precision_recall needs at least 4 .* not 3"):
        check_evaluable(config.model_copy(update={"evaluate": judge}))


@pytest.mark.parametrize(
    ("dropout", "guidance", "message"),
    [
        (0, 1.5, "guidance 1.5 needs the model without a label, which label_dropout 0 never"),
        (0, 0, "guidance 0 needs the model without a label"),
        (1, 1, "guidance 1 needs the model with labels, which label_dropout 1 never"),
    ],
)
def test_guidance_needs_embeddings_that_are_trained(
    dropout: float, guidance: float, message: str
) -> None:
    config = tiny_config(train={"label_dropout": dropout}, sample={"guidance": guidance})
    assert read_run(config.resolved()).id == config.id, "an old run still loads"
    with pytest.raises(ConfigError, match=message):
        check_evaluable(config)


@pytest.mark.parametrize(("dropout", "guidance"), [(0, 1), (1, 0), (0.1, 1.5)])
def test_guidance_by_embeddings_that_are_trained_is_accepted(
    dropout: float, guidance: float
) -> None:
    check_evaluable(tiny_config(train={"label_dropout": dropout}, sample={"guidance": guidance}))


def test_what_an_evaluation_needs_can_be_looked_for_without_torch() -> None:
    code = "import sys, mpdit.data.preflight; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_grey_extractor_refuses_images_with_colours(tmp_path: Path) -> None:
    data = {"name": "folder", "path": str(tmp_path), "channels": 3, "size": 8, "classes": 1}
    with pytest.raises(ConfigError, match="digits takes grey images"):
        check_evaluable(tiny_config(data=data, evaluate={"extractor": "digits"}))


def counted(calls: list[int]) -> dict[str, np.ndarray]:
    calls.append(1)
    return {"x": np.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_damaged_file_of_features_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    file, calls = tmp_path / "f.safetensors", list[int]()
    for _ in range(2):
        features.recall(file, {"data": "a"}, lambda: counted(calls))
    assert len(calls) == 1
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"?" if content is None else content)
    found = features.recall(file, {"data": "a"}, lambda: counted(calls))
    assert len(calls) == 2
    assert found["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    features.recall(file, {"data": "b"}, lambda: counted(calls))
    assert len(calls) == 3, "other content has another key"
