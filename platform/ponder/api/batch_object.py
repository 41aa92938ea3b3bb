"""OpenAI's batch object, field by field, with ponder's own fields under `ponder`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, TextClause, text

from ponder.api.limit_object import limit_object
from ponder.api.services import unix
from ponder.api.waiting import Stops, why_batch_waits, why_listed_batch_waits
from ponder.domain.budget import Allowance, BudgetName
from ponder.domain.state import BatchState
from ponder.domain.storable import JsonObject
from ponder.jobs.dispatching.dispatcher_status import DispatcherStatus, dispatcher_status
from ponder.jobs.estimating.project import Progress, project
from ponder.jobs.piloting.pilot import PilotStatus, pilots
from ponder.jobs.tally import Totals, totals
from ponder.ledger.spending import allowances
from ponder.store.retention import EXPIRED_AT

_MAX_ERRORS = 1_000
_TIMES = ("created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at")
_TIMES_OF_CANCELLING = ("cancelling_at", "cancelled_at")

_ERRORS = text(
    f"""
    SELECT line, code, left(message, 200) AS message, left(param, 200) AS param
    FROM batches JOIN rejected_lines ON batch_id = batches.id
    WHERE batches.id = :id AND {EXPIRED_AT} IS NULL ORDER BY line LIMIT :limit
    """
)
_RUNNING = text(
    """
    SELECT shards.batch_id, count(*) AS num
    FROM shards JOIN attempts ON attempts.shard_id = shards.id AND attempts.ended_at IS NULL
    WHERE shards.batch_id = ANY(CAST(:ids AS text[])) AND shards.state = 'held' GROUP BY shards.batch_id
    """
)
_INPUT = text(
    """
    SELECT batches.id AS batch_id, filename, model FROM batches
    LEFT JOIN files ON files.id = input_file_id
    LEFT JOIN LATERAL (SELECT model FROM jobs WHERE batch_id = batches.id ORDER BY line LIMIT 1) AS first ON true
    WHERE batches.id = ANY(CAST(:ids AS text[]))
    """
)


# A warning of a key or tenant concerns the batches that were open. The dispatcher may give it just after their end.
_WARNINGS = text(
    """
    SELECT batches.id AS batch_id, budget, measure, percent, share, warned_at
    FROM batches JOIN budget_warnings AS warning ON warning.tenant_id = batches.tenant_id
    WHERE batches.id = ANY(CAST(:ids AS text[])) AND (
        warning.batch_id = batches.id
        OR (warning.batch_id IS NULL AND (warning.key_id IS NULL OR warning.key_id = batches.key_id)
            AND warned_at BETWEEN batches.created_at
                AND coalesce(completed_at, failed_at, expired_at, cancelled_at, 'infinity') + interval '10 seconds')
    )
    ORDER BY warned_at, warning.id
    """
)


@dataclass(frozen=True, slots=True)
class _Facts:
    """The rows of other tables that belong to batches, by batch."""

    sums: Mapping[str, Totals]
    running: Mapping[str, list[Row[Any]]]
    input: Mapping[str, list[Row[Any]]]
    budgets: Mapping[str, Allowance]
    warnings: Mapping[str, list[Row[Any]]]
    pilots: Mapping[str, PilotStatus]
    status: DispatcherStatus

    def stops(self, batch_id: str) -> Stops:
        return Stops(self.status, self.budgets.get(batch_id), self.pilots.get(batch_id))


def batch_object(connection: Connection, batch: Row[Any]) -> JsonObject:
    """Returns the object of a row of the table `batches` with its `results_expired_at`, with the first of its errors,
    and what it is projected to cost while it is in progress.
    """
    errors = connection.execute(_ERRORS, {"id": batch.id, "limit": _MAX_ERRORS}).all()
    facts = _facts(connection, [batch])
    found = _object(batch, facts)
    own = found["ponder"]
    own["waiting"] = why_batch_waits(
        connection, batch, own["counts"]["pending"], bool(own["num_running"]), facts.stops(batch.id)
    )
    if batch.id in facts.pilots:
        own["pilot"]["estimate"] = facts.pilots[batch.id].estimate
    own["projection"] = _projection(connection, batch, facts)
    return found | {"errors": _errors(batch, errors)}


def batch_objects(connection: Connection, batches: Sequence[Row[Any]]) -> list[JsonObject]:
    """Returns objects in the order of the rows, without their errors' data, which may be a thousand each, the
    estimates of their pilots, and projections. `waiting` tells only what stops a whole batch.

    Makes a fixed number of queries for any number of batches, and none that counts jobs.
    """
    facts = _facts(connection, batches)
    return [_object(batch, facts) for batch in batches]


def _facts(connection: Connection, batches: Sequence[Row[Any]]) -> _Facts:
    ids = [batch.id for batch in batches]
    return _Facts(
        sums=totals(connection, ids),
        running=_grouped(connection, _RUNNING, ids),
        input=_grouped(connection, _INPUT, ids),
        budgets=allowances(connection, ids),
        warnings=_grouped(connection, _WARNINGS, ids),
        pilots=pilots(connection, ids),
        status=dispatcher_status(connection),
    )


def _grouped(connection: Connection, query: TextClause, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    groups: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(query, {"ids": list(ids)}):
        groups.setdefault(row.batch_id, []).append(row)
    return groups


def _object(batch: Row[Any], facts: _Facts) -> JsonObject:
    sums = facts.sums.get(batch.id, Totals())
    running, first = facts.running.get(batch.id, []), facts.input.get(batch.id, [])
    counts = _counts(batch, sums)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": first[0].model if first else None,
        "errors": {"object": "list"} if batch.errors or sums.num_rejected else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.state,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        **{name: unix(batch._mapping[name]) for name in _TIMES + _TIMES_OF_CANCELLING},
        "request_counts": {
            "total": batch.num_lines,
            "completed": counts["completed"],
            "failed": counts["failed"] + counts["expired"] + counts["cancelled"] + counts["rejected"],
        },
        "usage": _usage(sums),
        "metadata": batch.metadata or None,
        "ponder": {
            "options": batch.options if batch.results_expired_at is None else {},
            "input_filename": first[0].filename if first else None,
            "lane": batch.lane,
            "retry_of": batch.retry_of,
            "trace_id": batch.traceparent.split("-")[1] if batch.traceparent else None,
            "counts": counts,
            "verdicts": {
                "passed": sums.num_passed,
                "failed": sums.num_judged_wrong,
                "unverified": sums.num_unverified,
            },
            "num_by_judge": sums.num_by_judge,
            "num_passed_by_judge": sums.num_passed_by_judge,
            "num_oracle": sums.num_oracle,
            "tokens_generated": sums.generated_tokens,
            "direct_nanodollars": sums.direct_nanodollars,
            "results_expire_at": unix(_results_expire_at(batch)),
            "pruned_at": unix(batch.results_expired_at),
            "num_running": _sum(running),
            "waiting": why_listed_batch_waits(batch, counts["pending"], bool(running), facts.stops(batch.id)),
            "paused": batch.paused_at is not None,
            "budget": _budget(batch, facts.budgets.get(batch.id)),
            "warnings": [_warning(row) for row in facts.warnings.get(batch.id, [])],
            "pilot": _pilot(facts.pilots.get(batch.id), sums.num_settled),
        },
    }


def _results_expire_at(batch: Row[Any]) -> datetime | None:
    """Returns until when its results are kept, or None if for ever or if it has not ended."""
    ended_at: datetime | None = batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at
    if ended_at is None or batch.output_expires_after_s is None:
        return None
    return ended_at + timedelta(seconds=batch.output_expires_after_s)


def _projection(connection: Connection, batch: Row[Any], facts: _Facts) -> JsonObject | None:
    if batch.state != BatchState.IN_PROGRESS:
        return None
    pilot, allowance = facts.pilots.get(batch.id), facts.budgets.get(batch.id)
    progress = Progress(
        batch_id=batch.id,
        tenant_id=batch.tenant_id,
        num_lines=batch.num_lines,
        limits=() if allowance is None else allowance.limits,
        totals=facts.sums.get(batch.id, Totals()),
        num_pilot=0 if pilot is None else pilot.num_jobs,
    )
    return project(connection, progress)


def _budget(batch: Row[Any], allowance: Allowance | None) -> JsonObject | None:
    """Returns the batch's own limits, and what is spent and reserved of them."""
    own = None if allowance is None else allowance.own
    return None if own is None else limit_object(own) | {"exhausted_at": unix(batch.exhausted_at)}


def _warning(row: Row[Any]) -> JsonObject:
    return {
        "budget": row.budget,
        "limit": row.measure,
        "percent": row.percent,
        "share": row.share,
        "at": unix(row.warned_at),
        "message": f"{row.percent} % of the {row.measure} of {BudgetName(row.budget).words} are spent",
    }


def _pilot(pilot: PilotStatus | None, num_settled: int) -> JsonObject | None:
    """Returns the state of a pilot. Until it has passed, whatever has settled is part of it."""
    if pilot is None:
        return None
    return {
        "state": pilot.state.value,
        "reason": pilot.reason,
        "jobs": pilot.num_jobs,
        "settled": min(num_settled, pilot.num_jobs),
        "confirm": pilot.must_confirm,
    }


def _sum(rows: Sequence[Row[Any]]) -> int:
    return sum(int(row.num) for row in rows)


def _counts(batch: Row[Any], sums: Totals) -> dict[str, int]:
    """Counts jobs by state, and rejected lines. The rows of a stopped batch may follow later."""
    has_jobs = batch.state not in ("validating", "failed")
    counts = {
        "pending": batch.num_lines - sums.num_rejected - sums.num_settled if has_jobs else 0,
        "completed": sums.num_completed,
        "failed": sums.num_failed,
        "expired": sums.num_expired,
        "cancelled": sums.num_cancelled,
    }
    stopped_as = {"cancelling": "cancelled", "cancelled": "cancelled", "expired": "expired"}.get(batch.state)
    if stopped_as is not None:
        counts[stopped_as] += counts["pending"]
        counts["pending"] = 0
    return counts | {"rejected": sums.num_rejected}


def _errors(batch: Row[Any], rejected: Sequence[Row[Any]]) -> JsonObject | None:
    data = list(batch.errors or [])
    data += [{"code": row.code, "line": row.line, "message": row.message, "param": row.param} for row in rejected]
    return {"object": "list", "data": data} if data else None


def _usage(sums: Totals) -> JsonObject:
    return {
        "input_tokens": sums.prompt_tokens,
        "input_tokens_details": {"cached_tokens": sums.cached_tokens},
        "output_tokens": sums.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": sums.thinking_tokens, "judge_tokens": sums.judge_tokens},
        "total_tokens": sums.prompt_tokens + sums.completion_tokens,
    }
