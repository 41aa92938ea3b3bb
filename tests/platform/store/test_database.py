from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ponder.store.database import _notice_silence, connect


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


@pytest.mark.parametrize("timeout_s", [None, 1.5])
def test_postgres_lets_no_connection_hold_a_lock_for_ever(database_url: str, timeout_s: float | None) -> None:
    engine = connect(database_url, timeout_s=timeout_s)
    with engine.connect() as connection:
        shown = {
            name: connection.execute(text(f"SELECT setting FROM pg_settings WHERE name = '{name}'")).scalar_one()
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        }
    engine.dispose()
    assert list(shown.values()) == (["1500"] * 3 if timeout_s else ["600000", "10000", "60000"])


def test_a_connection_starts_with_nothing_that_a_pooler_refuses() -> None:
    """PgBouncer accepts these parameters and refuses connections with others."""

    def call(engine: Engine) -> None:
        with suppress(SQLAlchemyError):
            engine.connect()

    with socket.create_server(("127.0.0.1", 0)) as server:
        engine = connect(f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/d?application_name=a", timeout_s=5)
        caller = threading.Thread(target=call, args=(engine,))
        caller.start()
        with server.accept()[0] as connection:
            connection.recv(8)
            connection.sendall(b"N")  # no TLS
            (size,) = struct.unpack("!i", connection.recv(4))
            words = connection.recv(size - 4)[4:].split(b"\0")
        caller.join()
        engine.dispose()
    assert b"user" in words
    assert set(words[::2]) <= {b"", b"user", b"database", b"application_name", b"client_encoding"}


def test_either_end_of_a_tcp_connection_notices_that_the_other_machine_is_gone() -> None:
    """The embedded Postgres has no TCP, so the options are read back from another socket."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        _notice_silence(client)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


@contextmanager
def _silent_postgres(says: bytes) -> Iterator[str]:
    """Runs a server that accepts connections, says something to each, and then falls silent."""

    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(says)
            while self.request.recv(4096):
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"postgresql://u@127.0.0.1:{server.server_address[1]}/d"
        finally:
            server.shutdown()


_READY = b"N" + b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I"


@pytest.mark.parametrize("says", [b"", _READY], ids=["at the start", "in the middle"])
def test_a_postgres_that_falls_silent_is_an_error_of_sqlalchemys(says: bytes) -> None:
    with _silent_postgres(says) as url:
        engine = connect(url, timeout_s=0.2)
        with pytest.raises(SQLAlchemyError, match="network error"), engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()
