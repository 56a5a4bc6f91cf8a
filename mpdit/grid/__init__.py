"""YAML grids → runs. No Slurm, no torch."""
