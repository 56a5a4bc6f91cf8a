"""The files on disk: the contract between the science, which writes them, and their readers."""
