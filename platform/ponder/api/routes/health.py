"""The routes of health: whether the process is up, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from ponder.api.services import Ponder, Services
from ponder.domain.storable import JsonObject
from ponder.jobs.dispatching.dispatcher_status import DispatcherStatus, dispatcher_status
from ponder.queue.celery_app import trouble
from ponder.store.migrate import newest

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> JsonObject:
    """Answers if the process is up, without asking other services."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(ponder: Ponder) -> JSONResponse:
    """Answers 200 if Postgres is migrated, Redis accepts messages and no dispatcher error holds work up, else 503."""
    postgres = _postgres(ponder)
    dispatcher = _dispatcher(ponder) if postgres == "ok" else None
    checks = {
        "postgres": postgres,
        "redis": trouble(ponder.redis_url, timeout_s=2) or "ok",
        "dispatcher": "unknown: Postgres is not ready" if dispatcher is None else str(dispatcher),
    }
    is_ready = all(check == "ok" for check in checks.values())
    last_error = None if dispatcher is None else dispatcher.last_error
    said = {"status": "ok" if is_ready else "unready", **checks, "last_dispatcher_error": last_error}
    return JSONResponse(said, status_code=200 if is_ready else 503)


def _postgres(ponder: Services) -> str:
    try:
        with ponder.engine.connect() as connection:
            is_there = connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar()
            version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if is_there else None
    except (SQLAlchemyError, OSError):
        return "does not answer"
    return "ok" if version == newest() else "not migrated: run `ponder migrate`"


def _dispatcher(ponder: Services) -> DispatcherStatus:
    with ponder.engine.connect() as connection:
        return dispatcher_status(connection)
