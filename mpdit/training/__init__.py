"""The trainer and what it keeps, measures and reads."""
