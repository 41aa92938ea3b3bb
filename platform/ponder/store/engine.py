"""From a libpq-style URL to an SQLAlchemy engine on pg8000 (pure Python, permissive licence)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url

from ponder.errors import InvalidInput

_UNVERIFIED = ("require", "prefer", "allow")
_VERIFIED = ("verify-ca", "verify-full")


def connect(url: str, *, pool_size: int = 5, timeout_s: float | None = None) -> Engine:
    """A pool of connections that are checked before use, so that a restart of Postgres costs one retry.

    Understands what people have in their environment: `postgres://` and `postgresql://`, `?host=/socket/folder`,
    `?sslmode=`, `?sslrootcert=`. Raises InvalidInput for a URL that is none of these. Opens no connection yet.
    """
    parsed = _parse(url)
    query = dict(parsed.query)
    arguments: dict[str, Any] = {"tcp_keepalive": True, "timeout": timeout_s}
    arguments |= _socket(query, parsed.port) | _tls(query)
    unknown = set(query) - {"host", "sslmode", "sslrootcert", "application_name"}
    if unknown:
        raise InvalidInput(f"the database URL has parameters that ponder does not know: {', '.join(sorted(unknown))}")
    if "application_name" in query:
        arguments["application_name"] = query["application_name"]
    engine = create_engine(
        parsed.set(drivername="postgresql+pg8000", query={}),
        connect_args=arguments,
        hide_parameters=True,  # they hold prompts, and errors are logged
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size * 2,
    )
    event.listen(engine, "set_connection_execution_options", _leave_the_check_behind)
    return engine


def _leave_the_check_behind(connection: Connection, options: Mapping[str, Any]) -> None:
    """The check before use begins a transaction with pg8000, in which an autocommit connection would stay for ever."""
    if options.get("isolation_level") == "AUTOCOMMIT":
        connection.connection.rollback()


def _parse(url: str) -> URL:
    if not url.startswith(("postgres://", "postgresql://", "postgresql+pg8000://")):
        raise InvalidInput("a database URL begins with postgresql://", param="PONDER_DATABASE_URL")
    return make_url(url.replace("postgres://", "postgresql://", 1))


def _socket(query: Mapping[str, Any], port: int | None) -> dict[str, Any]:
    folder = query.get("host")
    return {"unix_sock": f"{folder}/.s.PGSQL.{port or 5432}"} if folder and str(folder).startswith("/") else {}


def _tls(query: Mapping[str, Any]) -> dict[str, Any]:
    """libpq's sslmode as an SSL context; `disable` and nothing said mean none."""
    mode = query.get("sslmode", "disable")
    if mode == "disable":
        return {}
    if mode not in _UNVERIFIED + _VERIFIED:
        raise InvalidInput(f"sslmode={mode} is none of disable, {', '.join(_UNVERIFIED + _VERIFIED)}")
    context = ssl.create_default_context(cafile=query.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if mode in _UNVERIFIED:
        context.verify_mode = ssl.CERT_NONE
    return {"ssl_context": context}
