"""The app and its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import ponder
from ponder.api import error_answers
from ponder.api.limit import Limited
from ponder.api.routes import batches, files, health, jobs, keys, metrics, models, prices, reports, tenants
from ponder.api.routes.metrics import Meter, Observed
from ponder.api.services import Services
from ponder.api.tenant_limits import TenantLimits
from ponder.domain.batch.submission import Submission
from ponder.domain.storable import JsonObject
from ponder.jobs.validation.check_limits import CheckLimits
from ponder.jobs.validation.submission_reader import SubmissionReader
from ponder.settings import Settings

_ROUTES = (health, metrics, files, batches, jobs, models, reports, tenants, keys, prices)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # answers hold prompts, and once a key
}


class _App(FastAPI):
    def openapi(self) -> JsonObject:
        """Adds the schema of a submission's body, which FastAPI does not read itself."""
        document = super().openapi()
        schema = Submission.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= {**schema.pop("$defs", {}), "Submission": schema}
        return document


def create_app(engine: Engine, redis_url: str, settings: Settings) -> FastAPI:
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
    app.state.services = Services(engine, redis_url, settings, reader, TenantLimits(settings))
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
