"""A step's small work in C, for the CPU; compiled where it runs, and left to torch where it cannot be."""
