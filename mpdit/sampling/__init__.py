"""Sample sets: what they are, and how they are drawn."""
