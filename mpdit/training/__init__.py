"""The trainer, its checkpoints, measurements and batches."""
