"""How a process works: device, signals, randomness, other processes."""
