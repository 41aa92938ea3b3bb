"""The commands that run services in the foreground: `ponder serve`, `dispatcher` and `migrate`."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import FrameType

import click
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder import log
from ponder.embedded.address import database_url, redis_url
from ponder.errors import Unreachable
from ponder.failure import brief
from ponder.settings import Settings
from ponder.store.database import connect


@click.command()
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1, or PONDER_HOST]")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8765, or PONDER_PORT]")
def serve(host: str | None, port: int | None) -> None:
    """Run the API."""
    import uvicorn

    from ponder.api.server import create_app, server_config

    settings = Settings()
    log.configure("api", settings.log_level)
    engine = connect(database_url(settings), pool_size=10)
    app = create_app(engine, redis_url(settings), settings)
    server = uvicorn.Server(server_config(app, settings, host=host or settings.host, port=port or settings.port))
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once everything is closed
        server.run()


@click.command()
def dispatcher() -> None:
    """Run the dispatcher. Any number may run; only one of them is active."""
    from ponder.jobs.dispatching.dispatcher import run

    settings = Settings()
    log.configure("dispatcher", settings.log_level)
    run(database_url(settings), redis_url(settings), settings, _stop_event())


@click.command()
def migrate() -> None:
    """Bring the database to the newest schema. PONDER_OPERATOR_KEY, if set, becomes an operator's key."""
    from ponder.store import migrate as schema
    from ponder.store.first_key import ensure_operator_key

    settings = Settings()
    log.configure("migrate", settings.log_level)
    engine = connect(database_url(settings))
    _check_connection(engine)
    schema.migrate(engine)
    if settings.operator_key is not None:
        with engine.begin() as connection:
            key = settings.operator_key.get_secret_value()
            ensure_operator_key(connection, key, tenant="operator", name="PONDER_OPERATOR_KEY")
    structlog.get_logger(__name__).info("migrated", revision=schema.newest())


def _check_connection(engine: Engine) -> None:
    """Raises Unreachable if Postgres does not answer or refuses the connection."""
    try:
        engine.connect().close()
    except (SQLAlchemyError, OSError) as error:
        hint = "is it running, and is PONDER_DATABASE_URL right?"
        raise Unreachable(f"Postgres cannot be used: {hint} ({brief(error)})") from error


def _stop_event() -> threading.Event:
    """Returns an event that SIGTERM or Ctrl-C sets."""
    event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        event.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    return event
