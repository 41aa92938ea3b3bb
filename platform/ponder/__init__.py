"""Asynchronous batch reasoning, with the cost of every verified answer."""

__version__ = "0.1.0"
