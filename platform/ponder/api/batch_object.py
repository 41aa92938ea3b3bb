"""OpenAI's batch object, field by field, with ponder's own fields under `ponder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, TextClause, text

from ponder.api.services import unix
from ponder.api.waiting import why_batch_waits
from ponder.domain.storable import JsonObject

_MAX_ERRORS = 1_000
_TIMES = ("created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at")
_TIMES_OF_CANCELLING = ("cancelling_at", "cancelled_at")

_JOBS = text(
    "SELECT batch_id, state, verdict, count(*) AS num, count(*) FILTER (WHERE oracle) AS num_oracle FROM jobs "
    "WHERE batch_id = ANY(CAST(:ids AS text[])) GROUP BY batch_id, state, verdict"
)
_REJECTED = text(
    "SELECT batch_id, count(*) AS num FROM rejected_lines WHERE batch_id = ANY(CAST(:ids AS text[])) GROUP BY batch_id"
)
_ERRORS = text(
    """
    SELECT batch.id AS batch_id, line, code, left(message, 200) AS message, left(param, 200) AS param
    FROM unnest(CAST(:ids AS text[])) AS batch(id)
    CROSS JOIN LATERAL (
        SELECT * FROM rejected_lines WHERE batch_id = batch.id ORDER BY line LIMIT :limit
    ) AS rejected
    ORDER BY batch.id, line
    """
)
_USAGE = text(
    """
    SELECT batch_id, sum(prompt_tokens) AS prompt, sum(cached_tokens) AS cached, sum(completion_tokens) AS generated,
           sum(thinking_tokens) AS thinking
    FROM jobs JOIN usage ON usage.job_id = jobs.id
    WHERE batch_id = ANY(CAST(:ids AS text[])) GROUP BY batch_id
    """
)
_SO_FAR = text(
    "SELECT batch_id, sum(num_tokens) AS num FROM tree_deltas WHERE batch_id = ANY(CAST(:ids AS text[])) "
    "GROUP BY batch_id"
)
_COST = text(
    "SELECT batch_id, sum(nanodollars) AS num FROM ledger_entries WHERE batch_id = ANY(CAST(:ids AS text[])) "
    "GROUP BY batch_id"
)
_RUNNING = text(
    """
    SELECT shards.batch_id, count(*) AS num
    FROM shards JOIN attempts ON attempts.shard_id = shards.id AND attempts.ended_at IS NULL
    WHERE shards.batch_id = ANY(CAST(:ids AS text[])) AND shards.state = 'held' GROUP BY shards.batch_id
    """
)
_MODEL = text(
    """
    SELECT batch.id AS batch_id, model FROM unnest(CAST(:ids AS text[])) AS batch(id)
    CROSS JOIN LATERAL (SELECT model FROM jobs WHERE batch_id = batch.id ORDER BY line LIMIT 1) AS first
    """
)


def batch_object(connection: Connection, batch: Row[Any]) -> JsonObject:
    """Returns the object of a row of the table `batches`, with the first of its errors."""
    errors = connection.execute(_ERRORS, {"ids": [batch.id], "limit": _MAX_ERRORS}).all()
    [found] = batch_objects(connection, [batch])
    return found | {"errors": _errors(batch, errors)}


def batch_objects(connection: Connection, batches: Sequence[Row[Any]]) -> list[JsonObject]:
    """Returns objects in the order of the rows, without their errors' data, which may be a thousand each.

    Makes a fixed number of queries for any number of batches.
    """
    ids = [batch.id for batch in batches]
    facts = {
        "jobs": _grouped(connection, _JOBS, ids),
        "rejected": _grouped(connection, _REJECTED, ids),
        "usage": _grouped(connection, _USAGE, ids),
        "so_far": _grouped(connection, _SO_FAR, ids),
        "cost": _grouped(connection, _COST, ids),
        "running": _grouped(connection, _RUNNING, ids),
        "model": _grouped(connection, _MODEL, ids),
    }
    return [
        _object(connection, batch, {name: rows.get(batch.id, []) for name, rows in facts.items()}) for batch in batches
    ]


def _grouped(connection: Connection, query: TextClause, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    groups: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(query, {"ids": list(ids)}):
        groups.setdefault(row.batch_id, []).append(row)
    return groups


def _object(connection: Connection, batch: Row[Any], facts: dict[str, list[Row[Any]]]) -> JsonObject:
    counts = _counts(batch.state, facts)
    tokens = facts["usage"][0] if facts["usage"] else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": facts["model"][0].model if facts["model"] else None,
        "errors": {"object": "list"} if batch.errors or facts["rejected"] else None,
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
        "usage": _usage(tokens),
        "metadata": batch.metadata or None,
        "ponder": {
            "options": batch.options,
            "lane": batch.lane,
            "retry_of": batch.retry_of,
            "counts": counts,
            "verdicts": _verdicts(facts["jobs"]),
            "num_oracle": sum(int(row.num_oracle) for row in facts["jobs"]),
            # A job's deltas are deleted when it is settled and gets a usage.
            "tokens_generated": (int(tokens.generated) if tokens else 0) + _sum(facts["so_far"]),
            "direct_nanodollars": _sum(facts["cost"]),
            "num_running": _sum(facts["running"]),
            "waiting": why_batch_waits(connection, batch, counts["pending"], bool(facts["running"])),
        },
    }


def _sum(rows: Sequence[Row[Any]]) -> int:
    return sum(int(row.num) for row in rows)


def _counts(batch_state: str, facts: dict[str, list[Row[Any]]]) -> dict[str, int]:
    """Counts jobs by state, and rejected lines. The rows of a stopped batch may follow later."""
    counts = dict.fromkeys(("pending", "completed", "failed", "expired", "cancelled"), 0)
    for row in facts["jobs"]:
        counts[row.state] += row.num
    stopped_as = {"cancelling": "cancelled", "cancelled": "cancelled", "expired": "expired"}.get(batch_state)
    if stopped_as is not None:
        counts[stopped_as] += counts["pending"]
        counts["pending"] = 0
    counts["rejected"] = _sum(facts["rejected"])
    return counts


def _verdicts(jobs: Sequence[Row[Any]]) -> dict[str, int]:
    verdicts = dict.fromkeys(("passed", "failed", "unverified"), 0)
    for row in jobs:
        if row.verdict is not None:
            verdicts[row.verdict] += row.num
    return verdicts


def _errors(batch: Row[Any], rejected: Sequence[Row[Any]]) -> JsonObject | None:
    data = list(batch.errors or [])
    data += [{"code": row.code, "line": row.line, "message": row.message, "param": row.param} for row in rejected]
    return {"object": "list", "data": data} if data else None


def _usage(tokens: Row[Any] | None) -> JsonObject:
    prompt, cached, generated, thinking = (
        (int(tokens.prompt), int(tokens.cached), int(tokens.generated), int(tokens.thinking)) if tokens else (0,) * 4
    )
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": thinking},
        "total_tokens": prompt + generated,
    }
