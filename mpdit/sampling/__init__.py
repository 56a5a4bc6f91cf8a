"""Sample sets: their description, drawing and files."""
