"""The signal and the plan: how much work waits, and which workers are worth their price now."""
