"""A trained model in Python, from its run, from an export and from the hub, draws the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import analysis
import mpdit
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE, EXIT_USAGE, ConfigError
from mpdit.pretrained import Pretrained
from mpdit.run import execute
from tests.helpers import ROOT
from tests.helpers.doors import call
from tests.helpers.samples import arrays
from tests.helpers.tiny import make


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A tiny run that is done, in a study's folder."""
    trained = make(tmp_path_factory.mktemp("results") / "study" / "A_s0-0123")
    assert execute(trained) == EXIT_DONE
    return trained


@pytest.fixture(scope="module")
def exported(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert call("export", run.path, folder, "--license", "mit") == EXIT_DONE
    return folder


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, mpdit; print(*{'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "\n"


def test_a_loaded_run_draws_the_runs_own_samples(run: RunDir) -> None:
    own, _ = arrays(run.samples / "samples.npz")
    drawn = mpdit.load(run.path).sample(count=len(own))
    assert (drawn.dtype, drawn.shape) == (np.uint8, (50, 8, 8, 1))
    np.testing.assert_array_equal(drawn, own)


def test_a_run_is_loaded_by_its_name_with_another_average(run: RunDir) -> None:
    model = mpdit.load(run.name, ema_std=0.1, step=12, results=run.path.parents[1])
    assert (model.ema_std, model.step, model.config.id) == (0.1, 12, run.config().id)


def test_what_is_drawn_can_be_chosen(run: RunDir) -> None:
    model = mpdit.load(run.path)
    threes = model.sample(classes=[3], count=4, guidance=2, solver="ddim", steps=3, seed=7)
    mixed = model.sample(classes=[3, 5], guidance=2, solver="ddim", steps=3, seed=7)
    assert (threes.shape, mixed.shape) == ((4, 8, 8, 1), (2, 8, 8, 1))
    np.testing.assert_array_equal(threes[0], mixed[0])  # image i of a seed has its own noise


@pytest.mark.parametrize(
    ("options", "key"),
    [({"classes": [12]}, "classes"), ({"solver": "dpmm++"}, "solver"), ({"steps": 0}, "steps")],
)
def test_a_wrong_argument_is_named(run: RunDir, options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        mpdit.load(run.path).sample(**options)  # type: ignore[arg-type]


def same(model: Pretrained, run: RunDir) -> None:
    """The model is the run's, to the bit: outputs and samples."""
    own = mpdit.load(run.path)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, 8, 8, generator=random)
    t, y = torch.tensor([0, 10, 999]), torch.tensor([0, 9, 10])
    with torch.inference_mode():
        assert torch.equal(model.model(x, t, y), own.model(x, t, y))
    count = own.config.sample.count
    np.testing.assert_array_equal(model.sample(count=count), own.sample(count=count))
    assert model.config.id == own.config.id


def test_an_exported_model_is_the_runs_to_the_bit(run: RunDir, exported: Path) -> None:
    same(mpdit.load(exported), run)
    with pytest.raises(ConfigError, match="one average"):
        mpdit.load(exported, step=12)


def test_the_hubs_own_loader_makes_the_same_model(run: RunDir, exported: Path) -> None:
    pytest.importorskip("huggingface_hub")
    from mpdit.hub import HubModel

    same(HubModel.from_pretrained(exported).pretrained(), run)


class Hub(SimpleHTTPRequestHandler):
    """The part of the hub that serves a model's files."""

    def send_head(self):  # type: ignore[no-untyped-def]
        self.path = self.path.replace("/somebody/digits/resolve/main/", "/")
        return super().send_head()

    def end_headers(self) -> None:
        file = Path(self.translate_path(self.path))
        if file.is_file():
            self.send_header("ETag", f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(exported: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(exported)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_from_the_hub_comes_the_same_model(exported: Path, hub: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    code = (
        "import numpy, sys; from mpdit.hub import HubModel\n"
        "model = HubModel.from_pretrained('somebody/digits').pretrained()\n"
        "numpy.save(sys.argv[1], model.sample(count=50))"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if "PROXY" not in name.upper()},
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    out = tmp_path / "drawn.npy"
    subprocess.run([sys.executable, "-c", code, str(out)], env=environment, check=True)
    np.testing.assert_array_equal(np.load(out), mpdit.load(exported).sample(count=50))
    assert list((tmp_path / "cache").rglob("model.safetensors"))


def test_the_card_has_the_hubs_fields_the_numbers_and_the_licences(
    run: RunDir, exported: Path
) -> None:
    _, fields, card = (exported / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(fields)
    assert (told["license"], told["library_name"], told["datasets"]) == ("mit", "mpdit", ["digits"])
    study = analysis.load(run.path.parent)
    for line in (*study.statements(), "FD-digits@50"):
        assert line in card
    assert (exported / "samples.png").read_bytes() == (run.samples / "grid.png").read_bytes()
    assert str(run.path) not in card + (exported / "config.json").read_text()


def test_a_folder_with_files_is_never_overwritten(
    run: RunDir, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in exported.iterdir()}
    assert call("export", run.path, exported) == EXIT_USAGE
    assert f"{exported} already exists" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in exported.iterdir()} == before
    assert [file.name for file in exported.parent.iterdir()] == [exported.name]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_export_is_named(exported: Path, tmp_path: Path, file: str) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content.replace(b'"run"', b'"ran"')[: len(content) - 9])
    with pytest.raises(ConfigError, match=str(copy / file)):
        mpdit.load(copy)


def test_a_loaded_study_has_frames_and_answers(run: RunDir) -> None:
    study = analysis.load(ROOT / "tests" / "golden" / "version-0.1" / "published")
    answers = study.answers()
    assert {"variant", "baseline", "verdict", "effect", "low", "high"} <= set(answers)
    assert len(study.statements()) >= len(answers) > 0
    assert analysis.load(run.path.parent).answers().empty
    assert json.dumps(study.runs["run"].tolist())
