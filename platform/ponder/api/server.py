"""The web server: the app with its routes, and uvicorn with limits on what clients can hold up by only connecting."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

import ponder
from ponder.api import error_answers
from ponder.api.error_answers import answer
from ponder.api.limit import Limited
from ponder.api.routes import (
    batches,
    budgets,
    estimates,
    files,
    health,
    jobs,
    keys,
    metrics,
    models,
    prices,
    prunes,
    reports,
    result_lines,
    tenants,
    webhook,
)
from ponder.api.routes.fleet import decisions, plans, workers
from ponder.api.routes.measuring import bench_runs, day_spending, measurements, worker_samples
from ponder.api.routes.metrics import Meter, Observed
from ponder.api.services import Services
from ponder.api.tenant_limits import TenantLimits
from ponder.domain.batch.submission import Submission
from ponder.domain.storable import JsonObject
from ponder.jobs.validation.check_limits import CheckLimits
from ponder.jobs.validation.submission_reader import SubmissionReader
from ponder.settings import Settings
from ponder.trace import Tracer

_ROUTES = (
    *(health, metrics, files, batches, result_lines, estimates, jobs, models, reports),
    *(tenants, keys, budgets, webhook, plans, decisions, workers, prices, prunes),
    *(measurements, worker_samples, bench_runs, day_spending),
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # answers hold prompts, and once a key
}
PROGRESS_BYTES = 16 * 1024
_CHECK_S = 0.5
_BACKLOG = 64
_OTHER_FILES = 64
"""Open files besides clients' connections: logs, and connections to Postgres and Redis."""


class _App(FastAPI):
    def openapi(self) -> JsonObject:
        """Adds the schema of a submission's body, which FastAPI does not read itself."""
        document = super().openapi()
        schema = Submission.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= {**schema.pop("$defs", {}), "Submission": schema}
        return document


def create_app(engine: Engine, redis_url: str, settings: Settings, tracer: Tracer | None = None) -> FastAPI:
    """Makes the app. It opens no connection yet, and the caller disposes of the engine.

    FastAPI's documentation pages are off, because they load scripts from elsewhere. Redirects to the path with or
    without a slash are off, because they lead to whatever Host the caller names.
    """
    reader = SubmissionReader(CheckLimits.of(settings))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        reader.close()

    app = _App(
        title="ponder",
        version=ponder.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.services = Services(engine, redis_url, settings, reader, TenantLimits(settings), tracer)
    app.state.meter = Meter(engine, redis_url)
    error_answers.install(app)
    app.add_middleware(Limited)
    app.add_middleware(Observed, meter=app.state.meter)
    app.add_middleware(_Hardened)
    for module in _ROUTES:
        app.include_router(module.router)
    return app


class _Hardened:
    """ASGI middleware whose headers keep browsers from rendering or storing answers. A route's own headers stay."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, adding)


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
