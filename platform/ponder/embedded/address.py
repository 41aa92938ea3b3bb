"""Finds Postgres and Redis: as the environment says, or the embedded ones of this PONDER_HOME."""

from __future__ import annotations

from ponder.settings import Settings


def database_url(settings: Settings) -> str:
    from ponder.embedded.postgres import EmbeddedPostgres

    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return EmbeddedPostgres(settings.home).url


def redis_url(settings: Settings) -> str:
    from ponder.embedded.redis import EmbeddedRedis

    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return EmbeddedRedis(settings.home).url
