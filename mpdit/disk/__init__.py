"""What is on disk: the contract between the science that writes it and all that reads it."""
