"""The web server: uvicorn with limits on what clients can hold up by only opening connections."""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ponder.api.error_answers import answer
from ponder.settings import Settings

PROGRESS_BYTES = 16 * 1024
_CHECK_S = 0.5
_BACKLOG = 64
_OTHER_FILES = 64
"""Open files besides clients' connections: logs, and connections to Postgres and Redis."""


def server_config(app: ASGIApp, settings: Settings, *, host: str, port: int) -> uvicorn.Config:
    """Makes uvicorn's configuration. Raises this process's limit of open files to its maximum."""
    protocol = partial(
        _Connection, max_connections=_room_for(settings.max_connections), patience_s=settings.client_timeout_s
    )
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast(type[asyncio.Protocol], protocol),
        ws="none",  # a WebSocket would take over the connection without its limits
        backlog=_BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


class _Connection(H11Protocol):
    """A connection that is closed if its client neither sends a request nor reads an answer for `patience_s`.

    A whole request, 16 KB of a body or 48 KB of an answer restart the time; a byte now and then does not. Beyond
    `max_connections` a new connection replaces the one that has waited longest for its client, so that idle connections
    lock nobody out.
    """

    def __init__(self, *arguments: Any, max_connections: int, patience_s: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._max_connections = max_connections
        self._patience_s = patience_s
        self._progressed_at = self.loop.time()
        self._num_bytes = 0
        self._check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections and not self._displace():
            self.connections.discard(self)
            transport.write(_REFUSAL)
            transport.close()
            return
        self._check = self.loop.call_later(_CHECK_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        request = self.cycle
        super().data_received(data)
        self._num_bytes += len(data) if self.conn.their_state is h11.SEND_BODY else 0
        if self.cycle is not request or self._num_bytes >= PROGRESS_BYTES:
            self._progress()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._progress()

    def _progress(self) -> None:
        self._progressed_at = self.loop.time()
        self._num_bytes = 0

    def _waits_for_client(self) -> bool:
        must_send = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.flow.read_paused
        return must_send or self.flow.write_paused

    def _look(self) -> None:
        if not self._waits_for_client():
            self._progress()
        elif self.loop.time() - self._progressed_at > self._patience_s:
            self.transport.abort()
            return
        self._check = self.loop.call_later(_CHECK_S, self._look)

    def _displace(self) -> bool:
        """Closes another connection in favour of this one. Returns False if the server is working for all of them."""
        others = (one for one in self.connections if isinstance(one, _Connection) and one is not self)
        waiting = min(
            (one for one in others if one._waits_for_client()), key=lambda one: one._progressed_at, default=None
        )
        if waiting is None:
            return False
        self.connections.discard(waiting)
        waiting.transport.abort()
        return True


def _room_for(max_connections: int) -> int:
    """Returns how many connections fit into the open files. Each may need a temporary file beside its socket."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return max(1, min(max_connections, (most - _BACKLOG - _OTHER_FILES) // 2))


def _refusal() -> bytes:
    response = answer(
        503,
        "the API has too many connections (PONDER_MAX_CONNECTIONS); try again",
        "server_error",
        code="too_many_connections",
    )
    head = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n" + head + b"connection: close\r\n\r\n" + bytes(response.body)


_REFUSAL = _refusal()
