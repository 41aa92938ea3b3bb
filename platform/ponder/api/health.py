"""Is the process up, and can it work?"""

from __future__ import annotations

from typing import Any

import redis
from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from ponder.api.services import Ponder, Services
from ponder.store.migrate import newest

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, Any]:
    """The process answers; asks nobody else."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(ponder: Ponder) -> JSONResponse:
    """200 when Postgres answers and is migrated and Redis answers, else 503; says which."""
    checks = {"postgres": _postgres(ponder), "redis": _redis(ponder.redis_url)}
    is_ready = all(check == "ok" for check in checks.values())
    return JSONResponse({"status": "ok" if is_ready else "unready"} | checks, status_code=200 if is_ready else 503)


def _postgres(ponder: Services) -> str:
    try:
        with ponder.engine.connect() as connection:
            is_there = connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar()
            version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if is_there else None
    except (SQLAlchemyError, OSError):
        return "does not answer"
    return "ok" if version == newest() else "not migrated: run `ponder migrate`"


def _redis(url: str) -> str:
    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        client.ping()
    except (redis.RedisError, OSError):
        return "does not answer"
    finally:
        client.close()
    return "ok"
