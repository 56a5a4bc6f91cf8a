"""Images → latents and back, by a VAE."""
