"""The runs of a study on Slurm."""
