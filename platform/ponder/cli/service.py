"""The services, in the foreground: `ponder serve`, `dispatcher` and `migrate`."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import click

from ponder.embedded.address import database_url, redis_url
from ponder.settings import Settings
from ponder.store.engine import connect


@click.command()
@click.option("--host", help="What to listen on.  [default: 127.0.0.1, or PONDER_HOST]")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8765, or PONDER_PORT]")
def serve(host: str | None, port: int | None) -> None:
    """Run the API."""
    import uvicorn

    from ponder.api.app import create_app

    settings = Settings()
    engine = connect(database_url(settings), pool_size=10)
    uvicorn.run(
        create_app(engine, redis_url(settings), settings),
        host=host or settings.host,
        port=port or settings.port,
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=5,
    )


@click.command()
def dispatcher() -> None:
    """Run the dispatcher. Any number may run; one of them is active."""
    from ponder.jobs.dispatcher import run

    settings = Settings()
    run(database_url(settings), redis_url(settings), settings, _stop_event())


@click.command()
def migrate() -> None:
    """Bring the database to the newest schema; PONDER_OPERATOR_KEY, if set, becomes an operator's key."""
    from ponder.store import migrate as schema
    from ponder.store.first_key import ensure_operator_key

    settings = Settings()
    engine = connect(database_url(settings))
    schema.migrate(engine)
    if settings.operator_key is not None:
        with engine.begin() as connection:
            key = settings.operator_key.get_secret_value()
            ensure_operator_key(connection, key, tenant="operator", name="PONDER_OPERATOR_KEY")
    click.echo("the database has the newest schema", err=True)


def _stop_event() -> threading.Event:
    """Set by SIGTERM or Ctrl-C."""
    event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        event.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    return event
