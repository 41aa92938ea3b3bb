"""Runs one step on the device: inputs, captured graphs, and results on their way to the host."""
