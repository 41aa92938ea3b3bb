from __future__ import annotations

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError


def test_an_autocommit_connection_from_the_pool_is_in_no_transaction(engine: Engine) -> None:
    with engine.connect() as used:
        used.execute(text("SELECT 1"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        listener.execute(text("LISTEN ponder"))
        assert listener.execute(text("SELECT pg_listening_channels()")).scalars().all() == ["ponder"]


def test_errors_do_not_quote_what_was_written(engine: Engine) -> None:
    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        connection.execute(text("SELECT CAST(:prompt AS integer) / 0"), {"prompt": 1234567})
    assert "1234567" not in str(caught.value)
