"""The API and the console on a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from sqlalchemy import Engine

from ponder.api.server import create_app, server_config
from ponder.console import app as console
from ponder.jobs.dispatching.dispatcher_status import record
from ponder.settings import Settings
from ponder.store.first_key import ensure_operator_key
from ponder.trace import Tracer


@contextmanager
def served(
    engine: Engine, redis_url: str, settings: Settings, operator_key: str, tracer: Tracer | None = None
) -> Iterator[str]:
    """Yields the address of an API with an operator's key, and with the record of a dispatcher that was just there."""
    with engine.begin() as connection:
        ensure_operator_key(connection, operator_key, tenant="home", name="test")
        record(connection, None)
    app = create_app(engine, redis_url, settings, tracer)
    console.install(app)
    server = uvicorn.Server(server_config(app, settings, host="127.0.0.1", port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
