"""The routes of /v1/fleet/workers and /v1/fleet/load: who works, who left, and how busy they are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Row, text

from ponder.api.auth import Operator
from ponder.api.page import LongLimit
from ponder.api.services import Ponder, seconds
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput

router = APIRouter(prefix="/v1/fleet", tags=["administration"])

_FRESH_S = 30
"""An older sample says nothing of what a worker does now."""
_MOST_STEPS = 1_000
_Moment = Annotated[float, Query(ge=0, le=1e11, allow_inf_nan=False, description="Unix seconds")]

_WORKERS = text(
    f"""
    SELECT worker.id, worker, host, model, fingerprint, machine, market, nanodollars_per_hour, state, started_at,
           lease_until, drain_until, ended_at, end_reason,
           state <> 'ended' AND lease_until > clock_timestamp() AS is_alive,
           (SELECT count(*) FROM attempts WHERE incarnation_id = worker.id AND attempts.ended_at IS NULL) AS num_jobs,
           sample.kv_usage, sample.num_running, sample.num_waiting,
           sample.generated_tokens / nullif(sample.seconds, 0) AS generated_tokens_per_s
    FROM incarnations AS worker
    LEFT JOIN LATERAL (
        SELECT * FROM worker_samples
        WHERE incarnation_id = worker.id AND at > clock_timestamp() - interval '{_FRESH_S} seconds'
        ORDER BY at DESC LIMIT 1
    ) AS sample ON state <> 'ended'
    WHERE state <> 'ended' OR ended_at >= to_timestamp(CAST(:since AS float8))
    ORDER BY state = 'ended', started_at DESC, worker.id LIMIT :limit
    """
)
# A worker's rates are averaged over each step first, so that workers of one model can be added.
_LOAD = text(
    """
    WITH each AS (
        SELECT incarnation_id, floor(extract(epoch FROM at) / :step_s) * :step_s AS step,
               sum(kv_usage * seconds) / sum(seconds) AS kv_usage,
               sum(num_running * seconds) / sum(seconds) AS num_running,
               sum(num_waiting * seconds) / sum(seconds) AS num_waiting,
               sum(generated_tokens) AS generated_tokens, sum(prompt_tokens) AS prompt_tokens
        FROM worker_samples
        WHERE at > to_timestamp(CAST(:since AS float8)) AND at <= to_timestamp(CAST(:until AS float8)) AND seconds > 0
        GROUP BY incarnation_id, step
    )
    SELECT model, CAST(step AS float8) AS at, count(*) AS num_workers, avg(each.kv_usage) AS kv_usage,
           sum(num_running) AS num_running, sum(num_waiting) AS num_waiting,
           CAST(sum(generated_tokens) / :step_s AS float8) AS generated_tokens_per_s,
           CAST(sum(prompt_tokens) / :step_s AS float8) AS prompt_tokens_per_s
    FROM each JOIN incarnations ON incarnations.id = incarnation_id GROUP BY model, step ORDER BY model, step
    """
)


@router.get("/workers")
def list_workers(ponder: Ponder, _caller: Operator, *, since: _Moment, limit: LongLimit = 100) -> JsonObject:
    """Lists workers: those that have not ended first, then those that ended since then; of both the newest first."""
    with ponder.engine.connect() as connection:
        rows = connection.execute(_WORKERS, {"since": since, "limit": limit + 1}).all()
    return {"object": "list", "data": [_worker(row) for row in rows[:limit]], "has_more": len(rows) > limit}


@router.get("/load")
def get_load(
    ponder: Ponder,
    _caller: Operator,
    *,
    since: _Moment,
    until: _Moment,
    step_s: Annotated[int, Query(ge=1, le=86_400)] = 60,
) -> JsonObject:
    """Reports the load of each model's workers in steps of time, the earliest first. Steps without work are missing."""
    if (until - since) / step_s > _MOST_STEPS:
        raise InvalidInput(f"ask for at most {_MOST_STEPS} steps: make them longer", param="step_s")
    values = {"since": since, "until": until, "step_s": step_s}
    with ponder.engine.connect() as connection:
        rows = connection.execute(_LOAD, values).all()
    return {"object": "list", "data": [{"object": "fleet.load", **row._mapping} for row in rows]}


def _worker(row: Row[Any]) -> JsonObject:
    has_sample = row.kv_usage is not None
    return {
        "id": row.id,
        "object": "fleet.worker",
        "worker": row.worker,
        "host": row.host,
        "model": row.model,
        "fingerprint": row.fingerprint,
        "machine": row.machine,
        "market": row.market,
        "nanodollars_per_hour": row.nanodollars_per_hour,
        "state": row.state,
        "is_alive": row.is_alive,
        "started_at": seconds(row.started_at),
        "lease_until": seconds(row.lease_until),
        "drain_until": seconds(row.drain_until),
        "ended_at": seconds(row.ended_at),
        "end_reason": row.end_reason,
        "num_jobs": row.num_jobs,
        "load": {
            "kv_usage": row.kv_usage,
            "num_running": row.num_running,
            "num_waiting": row.num_waiting,
            "generated_tokens_per_s": row.generated_tokens_per_s,
        }
        if has_sample
        else None,
    }
