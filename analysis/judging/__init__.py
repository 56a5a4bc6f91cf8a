"""What may be concluded from a study's numbers."""
