"""The speed of drawing samples, and of the networks that decode and evaluate them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gpu_checks.bench import Bench, relative
from gpu_checks.frame import Row
from mpdit.runtime.devices import prepare, set_precision
from mpdit.sampling.drawing import Drawing, draw
from mpdit.training.trainer import build_model

MEASURED = 10
"""The number of solver's steps that are timed; all steps take the same time."""
WHOLE = 250


def sampling(at: Bench) -> Iterator[Row]:
    """Images a second of the paper's sampler: 250 steps of DDPM, guidance 1.5."""
    prepare("float32")
    images = 8 if at.tiny else 250
    for size in ("S/2",) if at.tiny else ("S/2", "XL/2"):
        for precision in at.precisions:
            if (size, precision) == ("XL/2", "float32"):
                continue  # a quarter of a minute
            set_precision(precision, "sample.precision")
            config = at.config(size, sample={"steps": MEASURED, "precision": precision})
            model = build_model(config, at.place).eval()
            model.fold()
            drawing = Drawing.of_run(config)
            seconds = {}
            for solver in ("ddpm", "ddim"):  # which draws no noise
                own = replace(drawing, solver=solver)
                seconds[solver], _ = at.timed(
                    lambda m=model, d=own: draw(m, d, range(images), at.place),  # type: ignore[misc]
                    rounds=2,
                    warm=1,
                )
            speed = images / seconds["ddpm"] * MEASURED / WHOLE
            share = 1 - seconds["ddim"] / seconds["ddpm"]
            yield Row(f"{size} {precision}", {"images_s": speed, "noise_share": share})


def networks(at: Bench) -> Iterator[Row]:
    """Compare Inception and the VAE, with random weights, with the CPU's; measure their speed."""
    prepare("float32")
    yield from _inception(at)
    yield from _vae(at)


def _inception(at: Bench) -> Iterator[Row]:
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    network: nn.Module = fidelity.FeatureExtractorInceptionV3.__new__(
        fidelity.FeatureExtractorInceptionV3
    )
    load, state = torch.load, nn.Module.load_state_dict
    try:  # its constructor loads weights, which are not available
        torch.load = lambda *_, **__: {}
        nn.Module.load_state_dict = lambda *_, **__: None  # type: ignore[method-assign]
        network.__init__("inception", ["2048"], feature_extractor_weights_path="none")  # type: ignore[misc]
    finally:
        torch.load, nn.Module.load_state_dict = load, state  # type: ignore[method-assign]
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 128, 128), generator=random, dtype=torch.uint8)
    images = images[: 1 if at.tiny else 50]
    exact = network(images[:4])[0]
    network.to(at.place)
    error = relative(network(images[:4].to(at.place))[0], exact)
    yield Row("Inception beside the CPU's", error, error < 1e-3)
    seconds, _ = at.timed(lambda: network(images.to(at.place))[0].cpu(), 5, 2)
    yield Row("Inception, images/s", len(images) / seconds)


def _vae(at: Bench) -> Iterator[Row]:
    try:
        import diffusers
    except ImportError:
        yield Row("VAE", "diffusers is not installed (pip install 'mpdit[latents]')")
        return
    widths = (32, 64) if at.tiny else (128, 256, 512, 512)
    torch.manual_seed(0)
    make: Any = diffusers.AutoencoderKL
    vae = make(
        block_out_channels=widths,
        latent_channels=4,
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
    ).eval()
    latents = torch.randn(32, 4, 16, 16)

    @torch.inference_mode()
    def decode(part: Tensor) -> Tensor:
        images: Tensor = vae.decode(part).sample
        return images

    exact = decode(latents[:1])
    vae.to(at.place)
    on_device = latents.to(at.place)
    error = relative(decode(on_device[:1]), exact)
    yield Row("VAE beside the CPU's", error, error < 1e-3)
    seconds, _ = at.timed(lambda: decode(on_device), 3, 2)
    yield Row("VAE, 32 at once, images/s", len(latents) / seconds)
