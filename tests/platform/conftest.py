"""A small fleet without engines in a database of its own, and the API over it on a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served_api import served
from sqlalchemy import Engine
from world import World

from ponder.embedded.redis import EmbeddedRedis
from ponder.settings import Settings
from ponder.trace import Tracer


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


@pytest.fixture
def operator_key() -> str:
    return "pk-operator"


@pytest.fixture
def settings() -> Settings:
    """The settings of the API, which a test may replace."""
    return Settings()


@pytest.fixture
def tracer() -> Tracer | None:
    """The API's tracer, which a test may replace."""
    return None


@pytest.fixture
def base_url(
    engine: Engine, redis_server: EmbeddedRedis, operator_key: str, settings: Settings, tracer: Tracer | None
) -> Iterator[str]:
    with served(engine, redis_server.url, settings, operator_key, tracer) as url:
        yield url
