"""The commands that run services in the foreground: `ponder serve`, `dispatcher`, `autoscaler` and `migrate`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Any

import click
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder import log
from ponder.cli.amount import Dollars
from ponder.embedded.address import database_url, redis_url
from ponder.errors import Unreachable
from ponder.failure import brief
from ponder.settings import Settings
from ponder.store.database import connect
from ponder.tracing import start_tracing

_FLUSHED_WITHIN_S = 2.0
"""How long a service that ends waits for the collector of its traces."""


@click.command()
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1, or PONDER_HOST]")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8765, or PONDER_PORT]")
@click.option("--no-console", is_flag=True, help="Serve the API alone, without the web console.")
def serve(host: str | None, port: int | None, *, no_console: bool) -> None:
    """Run the API and the web console."""
    import uvicorn

    from ponder.api.server import create_app, server_config
    from ponder.console import app as console

    settings = Settings()
    log.configure("api", settings.log_level)
    engine = connect(database_url(settings), pool_size=10)
    tracer = start_tracing("api", settings)
    app = create_app(engine, redis_url(settings), settings, tracer)
    if not no_console:
        console.install(app)
    server = uvicorn.Server(server_config(app, settings, host=host or settings.host, port=port or settings.port))
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once everything is closed
        server.run()
    if tracer is not None:
        tracer.flush(_FLUSHED_WITHIN_S)


@click.command()
def dispatcher() -> None:
    """Run the dispatcher. Any number may run; only one of them is active."""
    from ponder.jobs.dispatching.dispatcher import run

    settings = Settings()
    log.configure("dispatcher", settings.log_level)
    tracer = start_tracing("dispatcher", settings)
    run(database_url(settings), redis_url(settings), settings, _stop_event(), tracer)
    if tracer is not None:
        tracer.flush(_FLUSHED_WITHIN_S)


def _machines(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    machines = []
    for text in given:
        machine, _, market = text.rpartition(":")
        if not machine or market not in ("on_demand", "spot"):
            raise click.BadParameter(f"{text!r} is not MACHINE:on_demand or MACHINE:spot")
        machines.append((machine, market))
    return tuple(machines)


@click.command()
@click.option(
    "--min",
    "min_workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The fewest workers of each --model.",
)
@click.option("--max", "max_workers", type=click.IntRange(1), help="The most workers, of all models together.")
@click.option("--max-dollars-per-hour", type=Dollars(), help="The most that all workers may cost together.")
@click.option("--model", "models", multiple=True, help="A model's name in jobs; may be repeated.  [default: all known]")
@click.option(
    "--machine",
    "machines",
    multiple=True,
    metavar="MACHINE:MARKET",
    callback=_machines,
    help="A machine of the price book that may be started; may be repeated.  [default: any where the model was timed]",
)
@click.option(
    "--provider",
    type=click.Choice(["local", "command", "kubernetes", "skypilot"]),
    default="local",
    show_default=True,
    help="What starts and stops workers; see docs/fleet.md.",
)
@click.option(
    "--drain-s",
    type=click.IntRange(0),
    default=120,
    show_default=True,
    help="Time to finish some work for a worker that is too many.",
)
@click.option(
    "--register-within-s",
    type=click.IntRange(1),
    default=600,
    show_default=True,
    help="Time after which a worker that has not registered is given up.",
)
@click.option("--start-command", metavar="LINE", help="command: starts a worker; see docs/fleet.md.")
@click.option("--stop-command", metavar="LINE", help="command: ends a worker.")
@click.option("--list-command", metavar="LINE", help="command: prints the ids of all workers.")
@click.option(
    "--command-timeout-s",
    type=click.IntRange(1),
    help="command, skypilot: seconds that a command may take.  [default: 60]",
)
@click.option(
    "--deployment",
    metavar="PATTERN",
    help="kubernetes: the name of a pool's Deployment.  [default: ponder-worker-{model}-{machine}-{market}]",
)
@click.option("--namespace", help="kubernetes.  [default: the autoscaler's own]")
@click.argument("worker_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF ponder worker]")
def autoscaler(
    *,
    min_workers: int,
    max_workers: int | None,
    max_dollars_per_hour: int | None,
    drain_s: int,
    register_within_s: int,
    **provider: Any,
) -> None:
    """Start and stop workers as the plan asks (`ponder fleet plan`). Any number may run; only one of them is active.

    What it decides and why is in `ponder fleet log`.
    """
    from ponder.fleet.autoscaler import Orders, run
    from ponder.fleet.problem import Bounds
    from ponder.fleet.providers import ProviderOptions, make_provider

    if max_workers is None and max_dollars_per_hour is None:
        raise click.UsageError("--max or --max-dollars-per-hour must say how much the workers may cost")
    if min_workers and not provider["models"]:
        raise click.UsageError("--min needs --model, which says of which models")
    if max_workers is not None and max_workers < min_workers:
        raise click.UsageError(f"--max {max_workers} is below --min {min_workers}: raise --max or lower --min")
    settings = Settings()
    bounds = Bounds(min_workers, max_workers, max_dollars_per_hour)
    orders = Orders(provider["models"], bounds, drain_s, register_within_s, provider["machines"])
    made = make_provider(ProviderOptions(**provider), settings)
    _check_prices(database_url(settings), provider["machines"])
    log.configure("autoscaler", settings.log_level)
    run(database_url(settings), made, orders, settings, _stop_event())


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


def _check_prices(database_url: str, machines: Collection[tuple[str, str]]) -> None:
    """Raises UnknownMachine for a machine without a price, of which no worker could be started."""
    from ponder.ledger.price_book import price_at

    engine = connect(database_url)
    with suppress(SQLAlchemyError, OSError), engine.connect() as connection:  # otherwise it waits, as all services do
        for machine, market in machines:
            price_at(connection, machine, market)
    engine.dispose()


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
