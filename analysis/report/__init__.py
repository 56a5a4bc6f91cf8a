"""The report, the terminal's tables, the paper's collection."""
