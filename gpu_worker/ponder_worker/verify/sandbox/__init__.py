"""Starts processes that can be ended at any time, and runs a model's programs in a sandbox."""
