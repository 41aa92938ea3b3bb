"""Brings a database to the newest schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

import ponder

_INSTALLED = Path(ponder.__file__).parent / "store" / "migrations"
_CHECKOUT = Path(ponder.__file__).parents[2] / "migrations"


@cache
def newest() -> str:
    """Returns the revision that this code expects a database to have."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def migrate(engine: Engine) -> None:
    """Runs every migration that the database has not seen, in one transaction."""
    config = _config()
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # a table may be huge
        _keep_ticks_out(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _keep_ticks_out(connection: Connection) -> None:
    """Lets running ticks end before anything is locked, or one of them and a migration might wait for each other.

    Every tick locks its incarnation first.
    """
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision != newest():
        connection.execute(text("LOCK TABLE incarnations IN EXCLUSIVE MODE"))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_INSTALLED if _INSTALLED.exists() else _CHECKOUT))
    return config
