"""The route of /v1/fleet/log: what the autoscaler decided, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from ponder.api.auth import Operator
from ponder.api.page import LongLimit
from ponder.api.services import Ponder, seconds
from ponder.domain.storable import JsonObject
from ponder.fleet.fleet_log import LogEntry, read_log

router = APIRouter(prefix="/v1/fleet", tags=["administration"])

_Since = Annotated[float | None, Query(ge=0, le=253_402_300_799, allow_inf_nan=False, description="Unix seconds")]
_Before = Annotated[int | None, Query(ge=1, le=2**62, description="the id before which the page begins")]


@router.get("/log")
def get_log(
    ponder: Ponder, _caller: Operator, *, limit: LongLimit = 100, since: _Since = None, before: _Before = None
) -> JsonObject:
    """Lists the autoscaler's decisions and what came of them, the newest first."""
    at = None if since is None else datetime.fromtimestamp(since, UTC)
    with ponder.engine.connect() as connection:
        entries = read_log(connection, limit=limit + 1, since=at, before=before)
    return {
        "object": "list",
        "data": [_object(entry) for entry in entries[:limit]],
        "has_more": len(entries) > limit,
    }


def _object(entry: LogEntry) -> JsonObject:
    decision = entry.decision
    return {
        "id": entry.id,
        "object": "fleet_decision",
        "at": seconds(entry.at),
        "action": decision.action.value,
        "model": decision.pool.model,
        "machine": decision.pool.machine,
        "market": decision.pool.market,
        "worker": decision.worker,
        "reason": decision.reason,
    }
