"""The model: layers, modulation, embeddings, and the Diffusion Transformer made of them."""

from mpdit.model.dit import SITES, DiT, Record
from mpdit.model.layers import magnitude

__all__ = ["SITES", "DiT", "Record", "magnitude"]
