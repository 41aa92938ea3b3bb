from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text


def test_a_fresh_database_has_exactly_the_tables_that_the_code_describes(engine: Engine) -> None:
    with engine.begin() as connection:
        config = Config("alembic.ini")
        config.attributes["connection"] = connection
        command.check(config)


def test_every_test_gets_an_empty_database(engine: Engine) -> None:
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM tenants")).scalar_one() == 0
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('t', 't')"))
