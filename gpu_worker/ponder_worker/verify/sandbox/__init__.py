"""Processes that can be ended, and the sandbox in which programs of a model run."""
