"""What several test modules share. Only tests import it, and it imports no test module."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
