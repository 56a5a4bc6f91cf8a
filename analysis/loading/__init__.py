"""Run directories → a study in memory."""
