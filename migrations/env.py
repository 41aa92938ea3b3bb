"""Alembic's entry: `ponder migrate` passes a connection, the alembic command line takes the URL from the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from ponder.settings import Settings
from ponder.store.database import connect
from ponder.store.tables import metadata


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    url = Settings().database_url
    if url is None:
        raise SystemExit("set PONDER_DATABASE_URL, or use `ponder migrate`, which finds the embedded Postgres")
    with connect(url.get_secret_value()).connect() as connection:
        _run(connection)
