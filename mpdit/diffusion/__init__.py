"""The diffusion process, and the solvers of its reverse process."""
