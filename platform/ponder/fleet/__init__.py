"""The fleet: how many machines of which kind the work is worth, and what fits on one."""
