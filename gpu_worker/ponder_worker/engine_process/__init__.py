"""The child process: engine steps and search coroutines alternate, one message each way a tick.

Nothing here is imported before `main` is called, so that the parent that names it holds no torch.
"""

from __future__ import annotations

from multiprocessing.connection import Connection

__all__ = ["main"]


def main(pipe: Connection, options: str) -> None:
    """The whole life of the child, until it was drained or its parent is gone. `options`: EngineOptions as JSON.

    Call it in a process of its own, spawned by a thread that lives as long as the child should.
    """
    from ponder_worker.engine_process.child import live

    live(pipe, options)
