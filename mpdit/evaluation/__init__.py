"""How far samples are from real images."""
