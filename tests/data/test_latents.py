"""The latent store says what it holds, notices what is damaged, and takes no memory."""

import json
import resource
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpdit.catalogue import Dataset
from mpdit.data import latents
from mpdit.data.latents import LatentStore, StorePlan, read_manifest, verify
from mpdit.encoding import build
from mpdit.encoding.build import build_store
from mpdit.errors import ConfigError
from tests.helpers import ROOT
from tests.helpers.latents import SOURCE, MadeUp, make_store


def test_rows_are_what_was_encoded_in_whichever_shard_they_lie(tmp_path: Path) -> None:
    store = LatentStore(make_store(tmp_path / "store", 50))
    images, flips = np.array([49, 0, 15, 16, 31, 0]), np.array([0, 1, 1, 0, 1, 0])
    assert (store.read(images, flips) == MadeUp(50).all[images, flips]).all()
    assert (store.labels == MadeUp(50).labels).all()
    shards = [store.read_shard(shard) for shard in range(4)]
    assert (np.concatenate(shards) == MadeUp(50).all).all()


def test_statistics_are_those_of_latents_drawn_from_the_posteriors(tmp_path: Path) -> None:
    manifest = read_manifest(make_store(tmp_path / "store", 50))
    moments = MadeUp(50).all.astype(np.float64)
    noise = np.random.default_rng(1).standard_normal((40, *moments[:, :, 0].shape))
    drawn = moments[:, :, 0] + moments[:, :, 1] * noise
    assert np.allclose(manifest.mean, drawn.mean((0, 1, 2, 4, 5)), atol=0.01)
    assert np.allclose(manifest.std, drawn.std((0, 1, 2, 4, 5)), rtol=1e-3)


def test_several_processes_make_the_same_store_as_one(tmp_path: Path) -> None:
    one = make_store(tmp_path / "one", 50)
    for rank in (2, 1, 0):
        build_store(MadeUp(50), tmp_path / "three", rank, processes=3)
    assert read_manifest(one) == read_manifest(tmp_path / "three")


def test_shards_that_are_done_are_never_made_again(tmp_path: Path) -> None:
    whole = make_store(tmp_path / "whole", 50)

    class Stopped(MadeUp):
        def moments(self, start, stop, advance):
            if start == 32:
                raise KeyboardInterrupt
            return super().moments(start, stop, advance)

    with pytest.raises(KeyboardInterrupt):
        build_store(Stopped(50), tmp_path / "store", 0, 1)
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        LatentStore(tmp_path / "store")
    encoder = MadeUp(50)
    build_store(encoder, tmp_path / "store", 0, 1)
    assert encoder.made == [32, 48]
    assert read_manifest(tmp_path / "store") == read_manifest(whole)
    build_store(encoder, tmp_path / "store", 0, 1)
    assert encoder.made == [32, 48]


class Wider(MadeUp):
    def __init__(self, images: int) -> None:
        super().__init__(images)
        self.plan = self.plan.model_copy(update={"size": 16})


def test_other_settings_do_not_go_on_with_a_store(tmp_path: Path) -> None:
    make_store(tmp_path, 50)
    with pytest.raises(ConfigError, match=r"made of other images \(images 50 there, 60 here\)"):
        build_store(MadeUp(60), tmp_path, 0, 1)
    with pytest.raises(ConfigError, match="size 8 there, 16 here"):
        build_store(Wider(50), tmp_path, 0, 1)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="size 8 there, 16 here"):
        build_store(Wider(50), tmp_path, 0, 1)
    assert build_store(MadeUp(50), tmp_path, 0, 1)


class Without(MadeUp):
    """All images but one."""

    def __init__(self, images: int, gone: int) -> None:
        super().__init__(images)
        self.all, self.labels = (np.delete(held, gone, axis=0) for held in (self.all, self.labels))
        self.plan = self.plan.model_copy(update={"images": images - 1})


def test_a_store_goes_on_without_an_image_and_keeps_the_shards_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last shard, of two images, is gone with the image."""
    make_store(tmp_path / "store", 33)
    (tmp_path / "store" / "manifest.json").unlink()
    encoder = Without(33, gone=20)
    build_store(encoder, tmp_path / "store", 0, 1)
    assert encoder.made == [16]
    assert "1 of 3 finished shards are of unchanged images" in capsys.readouterr().err
    assert not (tmp_path / "store" / "moments-00002.npy").exists()
    build_store(Without(33, gone=20), tmp_path / "whole", 0, 1)
    assert read_manifest(tmp_path / "store") == read_manifest(tmp_path / "whole")
    verify(tmp_path / "store", lambda _: None)


def test_a_store_of_other_images_altogether_is_left_alone(tmp_path: Path) -> None:
    make_store(tmp_path, 50)
    (tmp_path / "manifest.json").unlink()
    before = (tmp_path / "moments-00000.json").read_text()
    with pytest.raises(ConfigError, match="none of its finished shards is of these") as caught:
        build_store(Without(50, gone=0), tmp_path, 0, 1)
    assert "50 there, 49 here" in str(caught.value)
    assert (tmp_path / "moments-00000.json").read_text() == before


def test_shards_of_an_older_version_count_as_done(tmp_path: Path) -> None:
    make_store(tmp_path, 50)
    for file in tmp_path.glob("moments-*.json"):
        told = json.loads(file.read_text())
        file.write_text(json.dumps({k: told[k] for k in ("sha256", "total", "squares")}))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["source"]["content"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert LatentStore(tmp_path).manifest.source.content is None
    encoder = MadeUp(50)
    build_store(encoder, tmp_path, 0, 1)
    (tmp_path / "manifest.json").unlink()
    build_store(encoder, tmp_path, 0, 1)
    assert encoder.made == []


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ConfigError, match="holds other files"):
        build_store(MadeUp(50), tmp_path, 0, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = build.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: usage)
    encoder = MadeUp(50)
    with pytest.raises(ConfigError, match=r"needs 0\.0 GB, but its disk has"):
        build_store(encoder, tmp_path / "store", 0, 1)
    assert encoder.made == []


def test_a_disk_that_fills_up_is_named_and_leaves_no_half_shard(tmp_path: Path) -> None:
    (tmp_path / build.PLAN).write_text(MadeUp(50).plan.model_dump_json())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"moments-00000\.npy"):
            build_store(MadeUp(50), tmp_path, 0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == [build.PLAN]
    assert make_store(tmp_path, 50)


@pytest.mark.parametrize("name", ["moments-00003.npy", "moments-00000.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["shorter", "gone", "other"])
def test_a_file_that_is_not_whole_is_named_when_the_store_is_opened(
    tmp_path: Path, name: str, damage: str
) -> None:
    file = make_store(tmp_path, 50) / name
    if damage == "gone":
        file.unlink()
    elif damage == "shorter":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        np.save(file, np.zeros(3))
    with pytest.raises(ConfigError, match=name):
        LatentStore(tmp_path)


def test_a_damaged_manifest_says_what_is_wrong(tmp_path: Path) -> None:
    file = make_store(tmp_path, 50) / "manifest.json"
    damages: list[tuple[dict[str, object], str]] = [
        ({"format": 2}, "format"),
        ({"images": "many"}, "images"),
        ({"images": 0}, "images: Input should be greater than 0"),
        ({"std": [1, 1, 0, 1]}, r"std\.2: Input should be greater than 0"),
        ({"mean": [0, float("nan"), 0, 0]}, r"mean\.1: Input should be a finite number"),
        ({"mean": [0, 0]}, ": Value error, 2 means and 4 standard deviations for 4 channels"),
    ]
    for damage, message in damages:
        text = file.read_text()
        file.write_text(json.dumps(json.loads(text) | damage))
        with pytest.raises(ConfigError, match=f"manifest.json: {message}"):
            read_manifest(tmp_path)
        file.write_text(text)


def test_a_manifest_from_before_class_names_is_read(tmp_path: Path) -> None:
    file = make_store(tmp_path, 50) / "manifest.json"
    older = json.loads(file.read_text())
    del older["class_names"]
    file.write_text(json.dumps(older))
    assert read_manifest(tmp_path).class_names is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(50) % 3 - 1, "image 0 has label -1, but there are 3 classes"),
        (np.arange(50) % 4, "image 3 has label 3, but there are 3 classes"),
        (np.full(50, 0.7), "it holds float64 of shape"),
        (np.zeros(49, np.int64), r"it holds int64 of shape \(49,\), not int64 of \(50,\)"),
    ],
)
def test_labels_that_are_none_are_named_when_the_store_is_opened(
    tmp_path: Path, labels: np.ndarray, message: str
) -> None:
    np.save(make_store(tmp_path, 50) / "labels.npy", labels)
    with pytest.raises(ConfigError, match=rf"labels\.npy: {message}"):
        LatentStore(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_moments_that_are_none_are_found_in_a_sample_or_by_verify(
    tmp_path: Path, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_store(tmp_path, 50) / "moments-00001.npy"
    moments = np.load(file)
    moments[4, :, 1] = value
    np.save(file, moments)
    message = r"moments-00001\.npy: image 20: its means or standard deviations are not finite"
    with pytest.raises(ConfigError, match=message):
        LatentStore(tmp_path)
    monkeypatch.setattr(latents, "SAMPLE", 2)
    LatentStore(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["sha256"][file.name] = latents.checksum(file)  # it was made so
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=message):
        verify(tmp_path, lambda _: None)


def test_verify_finds_a_single_changed_byte(tmp_path: Path) -> None:
    make_store(tmp_path, 50)
    seen: list[int] = []
    verify(tmp_path, seen.append)
    assert sum(seen) == 50
    with (tmp_path / "moments-00002.npy").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ConfigError, match=r"moments-00002\.npy have changed"):
        verify(tmp_path, seen.append)


def test_a_store_of_another_shape_than_the_configs_is_refused_with_both(tmp_path: Path) -> None:
    store = LatentStore(make_store(tmp_path, 50))
    store.check_fits(Dataset(4, 8, 3, "inception"))
    with pytest.raises(ConfigError, match=r"4 channels, size 8, 3 .* 4 channels, size 16, 1000"):
        store.check_fits(Dataset(4, 16, 1000, "inception"))


SPARSE = runpy.run_path(str(ROOT / "benchmarks" / "latent_memory.py"))

READ_ALL = """
import sys
from pathlib import Path
import numpy as np
from mpdit.data import latents
from mpdit.data.latents import LatentStore
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
store = LatentStore(Path(sys.argv[1]))
before, images = peak(), store.manifest.images
for start in range(0, images, 64):
    rows = np.arange(start, min(start + 64, images))
    for flip in (0, 1):
        store.read(rows, np.full(len(rows), flip))
print(before, peak() - before)
"""


def test_reading_all_of_a_store_takes_no_memory(tmp_path: Path) -> None:
    """A store of 1 GB (a file with holes), ten times what the process holds."""
    plan = StorePlan(
        images=2048, classes=3, channels=16, size=64, flips=2, shard_images=1024, source=SOURCE
    )
    SPARSE["sparse_store"](tmp_path, plan)
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, grown = map(float, output.split())
    assert plan.bytes / 2**20 > 10 * before
    assert grown < 40  # MiB: a few batches of 16
