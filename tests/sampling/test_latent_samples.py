"""Samples of latents go through the VAE that their store was encoded with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mpdit.data.latents import LatentSource, Manifest
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.runtime.session import Session
from mpdit.sampling.drawing import Drawing, draw
from mpdit.sampling.sampler import draw_set, load_average
from mpdit.sampling.sampleset import to_uint8
from tests.helpers.samples import arrays
from tests.helpers.trained import trained

CPU = torch.device("cpu")
MEAN, STD = (1.0, 0.0, -1.0, 0.5), (2.0, 1.0, 0.5, 3.0)


@pytest.fixture
def latent_run(tmp_path: Path, vae: Path) -> RunDir:
    """A run on latents; of their store only the manifest is here."""
    from mpdit.encoding.encoders import load_vae, weights_hash

    source = LatentSource(
        data="folder",
        hash="0" * 16,
        pixels=16,
        vae=str(vae),
        vae_hash=weights_hash(load_vae(str(vae))),
    )
    manifest = Manifest(
        images=9,
        classes=10,
        channels=4,
        size=8,
        flips=2,
        shard_images=9,
        source=source,
        mean=MEAN,
        std=STD,
        sha256={},
    )
    store = tmp_path / "store"
    store.mkdir()
    (store / "manifest.json").write_text(manifest.model_dump_json())
    data = {"name": "latents", "path": str(store), "channels": 4, "size": 8, "classes": 10}
    return trained(tmp_path / "study" / "latent", data=data, sample={"labels": "even"})


def test_latents_are_denormalized_and_decoded(latent_run: RunDir, vae: Path) -> None:
    from mpdit.encoding.encoders import load_vae

    config = latent_run.config()
    drawing = replace(Drawing.of_run(config), count=36)  # more than are decoded at once
    images, _ = arrays(draw_set(config, Session(latent_run, recorded=False), drawing, CPU))
    assert images.shape == (36, 16, 16, 3)
    model = load_average(latent_run, 0.05, 24, CPU)
    x = draw(model, drawing, range(36), CPU)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        expected = load_vae(str(vae)).decode(x.clone() * std + mean).sample
    assert np.abs(images.astype(int) - to_uint8(expected.numpy(), "round")).max() <= 1


def test_a_vae_that_is_missing_or_another_is_said_in_one_message(
    latent_run: RunDir, vae: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, session = latent_run.config(), Session(latent_run, recorded=False)
    drawing = Drawing.of_run(config)
    monkeypatch.setenv("MPDIT_VAE", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"cannot load the VAE .*set MPDIT_VAE to a folder"):
        draw_set(config, session, drawing, CPU)
    manifest = tmp_path / "store" / "manifest.json"
    monkeypatch.setenv("MPDIT_VAE", str(vae))
    manifest.write_text(manifest.read_text().replace(str(vae), "somewhere/else"))
    draw_set(config, session, replace(drawing, count=2), CPU)
    found = Manifest.model_validate_json(manifest.read_bytes()).source.vae_hash
    manifest.write_text(manifest.read_text().replace(str(found), "f" * 16))
    with pytest.raises(ConfigError, match="not the one that the latents were encoded with"):
        draw_set(config, session, drawing, CPU)
    manifest.unlink()
    with pytest.raises(ConfigError, match=r"has no manifest\.json"):
        draw_set(config, session, drawing, CPU)
