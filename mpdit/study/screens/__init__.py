"""The text that the commands print in a terminal."""
