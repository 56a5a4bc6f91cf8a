"""The submission of a study's runs, and their state. Nothing here imports torch."""
