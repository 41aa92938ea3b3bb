"""The operations of a step in C, for the CPU. The code is compiled where it runs; without a compiler torch is used."""
