"""The fleet: how much work waits, which workers are worth their price now, and what fits on a machine."""
