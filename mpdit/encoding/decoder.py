"""A model's output → images: pixels are kept; latents are decoded by their VAE."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mpdit.config import DataConfig
from mpdit.data import datasets
from mpdit.data.latents import Manifest, read_manifest
from mpdit.encoding.encoders import load_vae, weights_hash
from mpdit.errors import ConfigError
from mpdit.runtime.devices import float32_products

Decode = Callable[
    [Float[Tensor, "batch channels height width"]], Float[Tensor, "batch colours rows columns"]
]

AT_ONCE = 32
"""Latents decoded at once: the decoder's intermediates take 100 MB for each image of 128²."""
VARIABLE = "MPDIT_VAE"
"""The environment variable with a folder of the VAE's weights, in place of the manifest's name."""


def open_decoder(data: DataConfig, device: torch.device) -> Decode:
    """The function from the outputs of a model of this data to images in [-1, 1] (not clipped).

    Raises:
        ConfigError: when the latent store's manifest, diffusers or the VAE's weights are missing,
            or the store was encoded with other weights.
    """
    if not datasets.is_latents(data):
        return lambda x: x
    return Decoder(read_manifest(datasets.place(data)), device)


class Decoder:
    """The VAE of a latent store, and the normalization of the model's latents."""

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        name = os.environ.get(VARIABLE) or manifest.source.vae
        where = f"set {VARIABLE} to a folder that save_pretrained has written"
        self.vae = load_vae(name, where)
        if manifest.source.vae_hash not in (None, weights_hash(self.vae)):
            raise ConfigError(
                f"the VAE {name} is not the one that the latents were encoded with "
                f"({manifest.source.vae}, weights {manifest.source.vae_hash}): {where}"
            )
        self.vae.to(device)
        self.mean, self.std = (
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in (manifest.mean, manifest.std)
        )

    @torch.inference_mode()
    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch colours rows columns"]:
        """Normalized latents → RGB images, in float32."""
        latents = x * self.std + self.mean
        with float32_products():
            return torch.cat([self.vae.decode(part).sample for part in latents.split(AT_ONCE)])
