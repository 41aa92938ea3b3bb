"""The app and its routes."""

from __future__ import annotations

from fastapi import FastAPI
from sqlalchemy import Engine

import ponder
from ponder.api import batches, errors, files, health, jobs, keys, metrics, models, prices, reports, tenants
from ponder.api.limit import Limited
from ponder.api.metrics import Meter, Observed
from ponder.api.services import Services
from ponder.settings import Settings

_ROUTES = (health, metrics, files, batches, jobs, models, reports, tenants, keys, prices)


def create_app(engine: Engine, redis_url: str, settings: Settings) -> FastAPI:
    """Opens no connection yet; the engine stays the caller's to dispose of."""
    app = FastAPI(title="ponder", version=ponder.__version__, docs_url="/docs", redoc_url=None)
    app.state.services = Services(engine, redis_url, settings)
    app.state.meter = Meter(engine, redis_url)
    errors.install(app)
    app.add_middleware(Limited)
    app.add_middleware(Observed, meter=app.state.meter)
    for module in _ROUTES:
        app.include_router(module.router)
    return app
