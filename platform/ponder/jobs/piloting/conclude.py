"""Concludes pilots whose jobs are settled: estimates the whole batch, and lets the rest run or makes it wait."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, text

from ponder.domain.state import PilotState
from ponder.domain.storable import JsonObject
from ponder.jobs.estimating.estimate_object import estimate_object
from ponder.jobs.estimating.fleet import loading_of
from ponder.jobs.estimating.predict import predict_batch
from ponder.jobs.piloting.pilot import Reason
from ponder.jobs.wake import wake
from ponder.store.document import dumps

# A completed batch was nothing but its pilot.
_SETTLED = text("""
    SELECT batch_id, tenant_id, must_confirm, limit_nanodollars, cardinality(job_ids) AS num_jobs,
           EXISTS (SELECT FROM jobs WHERE id = ANY(job_ids) AND state = 'completed') AS has_completed,
           NOT EXISTS (SELECT FROM jobs WHERE jobs.batch_id = pilots.batch_id AND state = 'pending') AS is_whole
    FROM pilots JOIN batches ON batches.id = batch_id
    WHERE pilots.state = 'running' AND batches.state IN ('in_progress', 'completed')
      AND NOT EXISTS (SELECT FROM jobs WHERE id = ANY(job_ids) AND state = 'pending')
    ORDER BY batch_id FOR NO KEY UPDATE OF pilots SKIP LOCKED
""")

_CONCLUDE = text("""
    UPDATE pilots SET state = :state, reason = CAST(:reason AS text), estimate = CAST(:estimate AS jsonb),
                      concluded_at = clock_timestamp()
    WHERE batch_id = :batch_id
""")

_AFFORD = text("""
    UPDATE pilots SET state = CASE WHEN must_confirm THEN 'waiting' ELSE 'passed' END,
                      reason = CASE WHEN must_confirm THEN 'confirm' END
    WHERE batch_id IN (
        SELECT batch_id FROM pilots JOIN batches ON batches.id = batch_id
        WHERE pilots.state = 'waiting' AND reason = 'over_budget' AND batches.state = 'in_progress'
          AND coalesce(limit_nanodollars >= CAST(estimate -> 'direct_nanodollars' ->> 'estimate' AS float8), true)
        ORDER BY batch_id FOR NO KEY UPDATE OF pilots SKIP LOCKED
    )
""")

_STOP = text("""
    UPDATE pilots SET state = 'stopped', reason = NULL
    WHERE batch_id IN (
        SELECT batch_id FROM pilots JOIN batches ON batches.id = batch_id
        WHERE pilots.state IN ('running', 'waiting') AND batches.state IN ('cancelling', 'cancelled', 'expired')
        ORDER BY batch_id FOR NO KEY UPDATE OF pilots SKIP LOCKED
    )
""")


def conclude(connection: Connection) -> None:
    """Concludes the pilots whose jobs are all settled, and those whose batch has ended.

    The rest of a batch waits if its owner wants to confirm it, if the estimate exceeds the batch's dollars, or if no
    job of the pilot completed. A higher budget, or none, lifts the second reason.
    """
    for pilot in connection.execute(_SETTLED).all():
        _conclude(connection, pilot)
    for statement in (_AFFORD, _STOP):
        if connection.execute(statement).rowcount:
            wake(connection)


def _conclude(connection: Connection, pilot: Row[Any]) -> None:
    estimate = _estimate(connection, pilot)
    reason = _reason(pilot, estimate)
    values = {
        "batch_id": pilot.batch_id,
        "state": PilotState.PASSED if reason is None else PilotState.WAITING,
        "reason": reason,
        "estimate": dumps(estimate),
    }
    connection.execute(_CONCLUDE, values)
    wake(connection)


def _estimate(connection: Connection, pilot: Row[Any]) -> JsonObject:
    found = predict_batch(connection, pilot.tenant_id, pilot.batch_id, num_pilot=pilot.num_jobs)
    assert found is not None, "a pilot without a survey"
    loading = loading_of(connection, sorted(found.survey.fingerprints))
    return estimate_object(found.totals, found.survey, loading, None)


def _reason(pilot: Row[Any], estimate: JsonObject) -> Reason | None:
    """Returns what the rest of the batch must wait for, if anything."""
    if pilot.is_whole:
        return None
    if not pilot.has_completed:
        return "failed"
    dollars = estimate["direct_nanodollars"]["estimate"]
    if pilot.limit_nanodollars is not None and dollars is not None and dollars > pilot.limit_nanodollars:
        return "over_budget"
    return "confirm" if pilot.must_confirm else None
