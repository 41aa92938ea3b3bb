"""The route of /v1/worker-samples: the load of workers over time."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Row, text

from ponder.api.auth import Tenant
from ponder.api.page import LongLimit
from ponder.api.services import Ponder, seconds
from ponder.domain.storable import JsonObject
from ponder.jobs.worker_sample import KEPT_DAYS, NUMBERS

router = APIRouter(prefix="/v1/worker-samples", tags=["reports"])

_LONGEST_S = 60
"""No sample covers more, except after an outage; a tenant does not see those."""


# No sample is older, so no worker of former times needs a look.
_SINCE = f"greatest(to_timestamp(CAST(:since AS float8)), now() - interval '{KEPT_DAYS} days')"
_UNTIL = "to_timestamp(CAST(:until AS float8))"


def _was_with(whose: str) -> str:
    """Returns SQL for whether a tenant's jobs were with the incarnation in the time that samples cover."""
    return f"""
        EXISTS (SELECT FROM attempts
                WHERE incarnation_id = incarnations.id AND {whose} AND attempts.started_at <= {_UNTIL}
                  AND coalesce(attempts.ended_at, 'infinity') >= {_SINCE} - interval '{_LONGEST_S} seconds')"""


# A tenant sees a worker only where nobody else's jobs were with it, or the load would tell about them.
_FIND = text(f"""
    WITH chosen AS MATERIALIZED (
        SELECT incarnations.id FROM incarnations
        WHERE started_at <= {_UNTIL} AND coalesce(ended_at, 'infinity') >= {_SINCE}
          AND (CAST(:sees_all AS boolean)
               OR {_was_with("tenant_id = :tenant_id")} AND NOT {_was_with("tenant_id <> :tenant_id")})
    )
    SELECT incarnation_id, worker, model, machine, market, at, {", ".join(NUMBERS)}
    FROM worker_samples JOIN chosen ON chosen.id = incarnation_id JOIN incarnations USING (id)
    WHERE at > {_SINCE} AND at <= {_UNTIL}
      AND (CAST(:sees_all AS boolean) OR seconds <= {_LONGEST_S})
    ORDER BY at, incarnation_id LIMIT :limit
""")
_Moment = Annotated[float, Query(ge=0, le=1e11, allow_inf_nan=False)]


@router.get("")
def list_samples(
    ponder: Ponder,
    caller: Tenant,
    *,
    since: _Moment,
    until: _Moment,
    limit: LongLimit = 10_000,
) -> JsonObject:
    """Lists samples of workers between two moments in Unix seconds, the oldest first; they are kept for a week.

    `at` is the end of the `seconds` that a sample's counts cover. An operator sees every worker; a tenant sees those
    that held jobs of no other tenant in all that time.
    """
    values = {
        "tenant_id": caller.tenant_id,
        "sees_all": caller.is_operator,
        "since": since,
        "until": until,
        "limit": limit + 1,
    }
    with ponder.engine.connect() as connection:
        rows = connection.execute(_FIND, values).all()
    return {"object": "list", "data": [_sample(row) for row in rows[:limit]], "has_more": len(rows) > limit}


def _sample(row: Row[Any]) -> JsonObject:
    return {
        "object": "worker_sample",
        "incarnation_id": row.incarnation_id,
        "worker": row.worker,
        "model": row.model,
        "machine": row.machine,
        "market": row.market,
        "at": seconds(row.at),
        **{name: row._mapping[name] for name in NUMBERS},
    }
