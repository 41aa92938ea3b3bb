"""The long-running service that moves batches along."""

from __future__ import annotations

import threading

from sqlalchemy import Engine

from ponder.settings import Settings


def run(engine: Engine, redis_url: str, settings: Settings, stop: threading.Event) -> None:
    """Validates, dispatches, finishes and sweeps until `stop` is set. Any number may run; one is active.

    Survives restarts of Postgres and Redis: it says so in the log and tries again, and never raises.
    """
    raise NotImplementedError
