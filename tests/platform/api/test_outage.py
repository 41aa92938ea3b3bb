"""Answers and logs while Postgres is away."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from ponder.api.server import create_app
from ponder.settings import Settings
from ponder.store.database import connect


def _get(engine: Engine, path: str) -> httpx2.Response:
    async def get() -> httpx2.Response:
        transport = httpx2.ASGITransport(create_app(engine, "redis://127.0.0.1:1", Settings()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://ponder") as client:
            return await client.get(path, headers={"Authorization": "Bearer pk-x"})

    return asyncio.run(get())


def _check_unavailable(response: httpx2.Response) -> None:
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json()["error"]["code"] == "unavailable"


def test_a_postgres_that_is_away_is_503_with_retry_after_and_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = connect(f"postgresql://u@/d?host={tmp_path}")
    _check_unavailable(_get(engine, "/v1/batches"))
    assert not [record for record in caplog.records if record.exc_info and record.levelno < logging.CRITICAL]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        TimeoutError("timed out"),
        BrokenPipeError(),
        OperationalError("", {}, Exception()),
    ],
)
def test_every_error_of_a_connection_is_503(engine: Engine, error: Exception) -> None:
    @event.listens_for(engine, "before_cursor_execute")
    def break_off(*_: object) -> None:
        raise error

    _check_unavailable(_get(engine, "/v1/batches"))
