"""The conclusions of pilots whose jobs are settled: the whole batch is estimated, and the rest runs or waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row, text

from ponder.domain.forecast.ratio import Estimate
from ponder.domain.state import PilotState
from ponder.domain.storable import JsonObject
from ponder.failure import brief
from ponder.jobs.estimating.estimate_object import estimate_object
from ponder.jobs.estimating.fleet import loading_of
from ponder.jobs.estimating.predict import predict_batch
from ponder.jobs.piloting.pilot import Reason
from ponder.jobs.wake import wake
from ponder.store.document import dumps

_MOST = 5
"""The most pilots that are concluded in a turn. A conclusion wakes the dispatcher, so the next turn comes soon."""
_RETRY_S = 30.0

_log = structlog.get_logger(__name__)

# A completed batch was nothing but its pilot.
_NEXT = text("""
    SELECT batch_id, tenant_id, must_confirm, limit_nanodollars, cardinality(job_ids) AS num_jobs,
           EXISTS (SELECT FROM jobs WHERE id = ANY(job_ids) AND state = 'completed') AS has_completed,
           NOT EXISTS (SELECT FROM jobs WHERE jobs.batch_id = pilots.batch_id AND state = 'pending') AS is_whole
    FROM pilots JOIN batches ON batches.id = batch_id
    WHERE pilots.state = 'running' AND batches.state IN ('in_progress', 'completed')
      AND batch_id <> ALL(CAST(:put_off AS text[]))
      AND NOT EXISTS (SELECT FROM jobs WHERE id = ANY(job_ids) AND state = 'pending')
    ORDER BY batch_id LIMIT 1 FOR NO KEY UPDATE OF pilots SKIP LOCKED
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


@dataclass(slots=True)
class Conclusions:
    """Concludes the pilots whose jobs are all settled, and those whose batch has ended.

    The rest of a batch waits if its owner wants to confirm it, if the estimate exceeds the batch's dollars, or if no
    job of the pilot completed. A higher budget, or none, lifts the second reason.
    """

    engine: Engine
    put_off: dict[str, float] = field(default_factory=dict)
    """The batches whose pilots could not be concluded, and when they are tried again."""

    def turn(self, now_s: float) -> None:
        """Concludes a few pilots, each in a transaction of its own, so that none holds up another or any other step.

        One that fails is logged and put off. `now_s` is the time of a clock that is never set back.
        """
        self.put_off = {batch_id: until_s for batch_id, until_s in self.put_off.items() if until_s > now_s}
        loadings: dict[tuple[str, ...], Estimate] = {}
        for _ in range(_MOST):
            if not self._conclude_next(now_s, loadings):
                break
        with self.engine.begin() as connection:
            for statement in (_AFFORD, _STOP):
                if connection.execute(statement).rowcount:
                    wake(connection)

    def _conclude_next(self, now_s: float, loadings: dict[tuple[str, ...], Estimate]) -> bool:
        """Returns whether there was one."""
        pilot = None
        try:
            with self.engine.begin() as connection:
                pilot = connection.execute(_NEXT, {"put_off": list(self.put_off)}).first()
                if pilot is not None:
                    _conclude(connection, pilot, loadings)
        except Exception as error:  # whatever is wrong with one batch, the others go on
            if pilot is None:
                raise
            self.put_off[pilot.batch_id] = now_s + _RETRY_S
            _log.warning("pilot_not_concluded", batch=pilot.batch_id, error=brief(error), retry_s=_RETRY_S)
        return pilot is not None


def _conclude(connection: Connection, pilot: Row[Any], loadings: dict[tuple[str, ...], Estimate]) -> None:
    estimate = _estimate(connection, pilot, loadings)
    reason = _reason(pilot, estimate)
    values = {
        "batch_id": pilot.batch_id,
        "state": PilotState.PASSED if reason is None else PilotState.WAITING,
        "reason": reason,
        "estimate": dumps(estimate),
    }
    connection.execute(_CONCLUDE, values)
    wake(connection)


def _estimate(connection: Connection, pilot: Row[Any], loadings: dict[tuple[str, ...], Estimate]) -> JsonObject:
    """Returns the estimate of the whole batch. `loadings` keeps what was read for other batches of the same models."""
    found = predict_batch(connection, pilot.tenant_id, pilot.batch_id, num_pilot=pilot.num_jobs)
    assert found is not None, "a pilot without a survey"
    models = tuple(sorted(found.survey.fingerprints))
    if models not in loadings:
        loadings[models] = loading_of(connection, models)
    return estimate_object(found.totals, found.survey, loadings[models], None)


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
