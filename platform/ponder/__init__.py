"""ponder: asynchronous batch reasoning, and what every verified answer cost."""

__version__ = "0.1.0"
