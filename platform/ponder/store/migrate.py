"""Brings a database to the newest schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

import ponder

_INSTALLED = Path(ponder.__file__).parent / "store" / "migrations"
_CHECKOUT = Path(ponder.__file__).parents[2] / "migrations"


def migrate(engine: Engine) -> None:
    """Runs every migration that the database has not seen, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(_INSTALLED if _INSTALLED.exists() else _CHECKOUT))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
