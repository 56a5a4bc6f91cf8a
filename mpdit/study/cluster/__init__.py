"""A study's runs on Slurm."""
