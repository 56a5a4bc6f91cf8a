"""mpdit: ablations of magnitude preservation and conditioning in Diffusion Transformers."""

__version__ = "0.1.0"
