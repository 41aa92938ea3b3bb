"""Makes an SQLAlchemy engine on pg8000 (pure Python, permissive licence) from a libpq-style URL."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import pg8000.dbapi
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url

from ponder.errors import InvalidInput

_UNVERIFIED = ("require", "prefer", "allow")
_VERIFIED = ("verify-ca", "verify-full")

_STATEMENT_S = 600.0
_LOCK_S = 10.0
_IDLE_IN_TRANSACTION_S = 60.0
_URL = "database_url"
_SILENCE_S = 30.0
"""Either side gives up a TCP connection whose other end acknowledges nothing for this long."""


def connect(url: str, *, pool_size: int = 5, timeout_s: float | None = None) -> Engine:
    """Makes a pool of connections that are checked before use, so that a restart of Postgres costs one retry.

    Accepts the usual forms: `postgres://` and `postgresql://`, `?host=/socket/folder`, `?sslmode=`, `?sslrootcert=`.
    Raises InvalidInput for any other URL. Opens no connection yet.

    No connection holds locks for ever: Postgres ends a statement, a wait for a lock and an idle transaction after
    `timeout_s`, and the caller waits a little longer for the answer. By default the limits are those of a service: 10
    minutes, 10 seconds and 1 minute. Every error of a connection is an SQLAlchemyError.
    """
    parsed = _parse(url)
    query = dict(parsed.query)
    arguments: dict[str, Any] = {"tcp_keepalive": True}
    arguments["timeout"] = None if timeout_s is None else 1.25 * timeout_s
    arguments |= _socket(query, parsed.port) | _tls(query)
    unknown = set(query) - {"host", "sslmode", "sslrootcert", "application_name"}
    if unknown:
        raise InvalidInput(f"the database URL has unknown parameters: {', '.join(sorted(unknown))}")
    if "application_name" in query:
        arguments["application_name"] = query["application_name"]
    engine = create_engine(
        parsed.set(drivername="postgresql+pg8000", query={}),
        connect_args=arguments,
        hide_parameters=True,  # parameters hold prompts, and errors are logged
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size * 2,
        execution_options={_URL: url},
    )
    event.listen(engine, "set_connection_execution_options", _leave_the_check_behind)
    event.listen(engine, "do_connect", partial(_connect, _limits(timeout_s)))
    return engine


def url_of(engine: Engine) -> str:
    """Returns the URL that `connect` was called with, so that another process can connect too."""
    return str(engine.get_execution_options()[_URL])


class _Reading:
    """A file whose reading errors are translated. Everywhere else pg8000 wraps the socket's errors itself."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._file.read(size))
        except OSError as error:
            raise pg8000.dbapi.InterfaceError("network error") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _connect(limits: str, _dialect: Dialect, _record: object, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        connection = pg8000.dbapi.connect(*arguments, **named)
    except OSError as error:
        raise pg8000.dbapi.InterfaceError(f"network error: {error}") from error
    # pg8000 has no public names for these two.
    _notice_silence(connection._usock)
    connection._sock = _Reading(connection._sock)
    connection.execute_simple(limits)
    return connection


def _limits(timeout_s: float | None) -> str:
    """Returns statements that limit Postgres's end of a connection. A Unix socket ignores those about TCP.

    They are not startup parameters, because PgBouncer refuses connections with parameters it does not know.
    """
    limits_s = {
        "statement_timeout": timeout_s or _STATEMENT_S,
        "lock_timeout": timeout_s or _LOCK_S,
        "idle_in_transaction_session_timeout": timeout_s or _IDLE_IN_TRANSACTION_S,
        "tcp_user_timeout": _SILENCE_S,
    }
    keepalives = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4"}
    settings = {name: f"{limit_s * 1000:.0f}" for name, limit_s in limits_s.items()} | keepalives
    return "; ".join(f"SET {name} = {value}" for name, value in settings.items())


def _notice_silence(ours: socket.socket) -> None:
    """Sets the same for our end, because by default Linux takes two hours to notice that the other machine is gone."""
    if ours.family != socket.AF_UNIX and sys.platform == "linux":
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_SILENCE_S * 1000))


def _leave_the_check_behind(connection: Connection, options: Mapping[str, Any]) -> None:
    """Ends the transaction of the check before use, or an autocommit connection of pg8000's would stay in it."""
    if options.get("isolation_level") == "AUTOCOMMIT":
        connection.connection.rollback()


def _parse(url: str) -> URL:
    if not url.startswith(("postgres://", "postgresql://", "postgresql+pg8000://")):
        raise InvalidInput("a database URL must begin with postgresql://", param="PONDER_DATABASE_URL")
    return make_url(url.replace("postgres://", "postgresql://", 1))


def _socket(query: Mapping[str, Any], port: int | None) -> dict[str, Any]:
    folder = query.get("host")
    return {"unix_sock": f"{folder}/.s.PGSQL.{port or 5432}"} if folder and str(folder).startswith("/") else {}


def _tls(query: Mapping[str, Any]) -> dict[str, Any]:
    """Translates libpq's sslmode into an SSL context. `disable`, the default, means none."""
    mode = query.get("sslmode", "disable")
    if mode == "disable":
        return {}
    if mode not in _UNVERIFIED + _VERIFIED:
        raise InvalidInput(f"sslmode={mode} is not one of disable, {', '.join(_UNVERIFIED + _VERIFIED)}")
    context = ssl.create_default_context(cafile=query.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if mode in _UNVERIFIED:
        context.verify_mode = ssl.CERT_NONE
    return {"ssl_context": context}
