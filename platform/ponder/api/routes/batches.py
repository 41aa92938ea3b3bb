"""The routes of /v1/batches."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from sqlalchemy import Connection, text

from ponder.api.auth import Caller, Tenant
from ponder.api.batch_object import batch_object, batch_objects
from ponder.api.job_object import COMPLETION_TOKENS, OUTCOME, job_summary
from ponder.api.page import After, Limit, check_cursor, page
from ponder.api.request_span import Traced
from ponder.api.services import Ponder, Services, identifier, job_number
from ponder.api.submitted import SUBMISSION, raw_body
from ponder.domain.batch.submission import Change
from ponder.domain.state import JobState
from ponder.domain.storable import JsonObject, StorableText
from ponder.errors import NotFound
from ponder.jobs.batch.cancel import cancel
from ponder.jobs.batch.change import change
from ponder.jobs.batch.retry import retry
from ponder.jobs.batch.submit import submit
from ponder.store.job_state import JOB_STATE
from ponder.store.retention import EXPIRED_AT
from ponder.store.tables import batches

router = APIRouter(prefix="/v1/batches", tags=["batches"])

IdempotencyKey = Annotated[StorableText | None, Header(min_length=1, max_length=255)]

_FIND = text(f"""
    SELECT batches.*, {EXPIRED_AT} AS results_expired_at FROM batches WHERE id = :id AND tenant_id = :tenant_id
""")
_OPTIONS_BYTES = 4_096
"""Lists leave out longer options, which may be a megabyte per batch."""
_LIST = text(
    f"""
    SELECT {", ".join(column.name for column in batches.columns if column.name != "options")},
           CASE WHEN pg_column_size(options) <= {_OPTIONS_BYTES} THEN
               CASE WHEN octet_length(CAST(options AS text)) <= {_OPTIONS_BYTES} THEN options END
           END AS options, {EXPIRED_AT} AS results_expired_at
    FROM batches
    WHERE tenant_id = :tenant_id
      AND (CAST(:after AS text) IS NULL
           OR (created_at, id) < (SELECT created_at, id FROM batches WHERE id = :after AND tenant_id = :tenant_id))
    ORDER BY created_at DESC, id DESC LIMIT :limit
    """
)
_CURSOR = text("SELECT 1 FROM batches WHERE id = :after AND tenant_id = :tenant_id")
_JOBS_CURSOR = text("SELECT 1 FROM jobs WHERE id = :after AND batch_id = :batch_id")
_JOBS = text(
    f"""
    SELECT jobs.id, batch_id, custom_id, line, jobs.model, jobs.fingerprint, {JOB_STATE} AS current_state, verdict,
           checked, jobs.judged, jobs.oracle, strategy, level, jobs.created_at, settled_at, traceparent,
           {OUTCOME},
           {COMPLETION_TOKENS}
    FROM jobs JOIN batches ON batches.id = batch_id
    LEFT JOIN results ON results.job_id = jobs.id LEFT JOIN usage ON usage.job_id = jobs.id
    WHERE batch_id = :batch_id AND jobs.tenant_id = :tenant_id
      AND (CAST(:state AS text) IS NULL OR {JOB_STATE} = :state)
      AND (CAST(:custom_id AS text) IS NULL OR custom_id = :custom_id)
      AND line > coalesce((SELECT line FROM jobs WHERE id = CAST(:after AS bigint) AND batch_id = :batch_id), 0)
    ORDER BY line LIMIT :limit
    """
)


@router.post("", openapi_extra=SUBMISSION)
def create(
    body: Annotated[bytes, Depends(raw_body)],
    ponder: Ponder,
    caller: Tenant,
    span: Traced,
    idempotency_key: IdempotencyKey = None,
) -> JsonObject:
    """Submits a batch. A repeated `Idempotency-Key` returns the batch that the first request made.

    If traces are on, the batch's span belongs to the trace that the header `traceparent` names.
    """
    with ponder.limits.submissions.one(caller.tenant_id, is_operator=caller.is_operator):
        submission = ponder.reader.read(body)
    new_batch_id = f"batch_{secrets.token_hex(12)}"
    with ponder.engine.begin() as connection:
        batch_id = submit(
            connection,
            caller.tenant_id,
            submission,
            ponder.settings,
            batch_id=new_batch_id,
            key_id=caller.key_id,
            idempotency_key=idempotency_key,
            most_open=_most_open(ponder, caller),
            traceparent=span.traceparent,
        )
        found = _one(connection, caller.tenant_id, batch_id)
    if batch_id == new_batch_id:
        span.end(batch_id, caller.tenant_id)
    return found


@router.get("")
def list_batches(ponder: Ponder, caller: Tenant, limit: Limit = 20, after: After = None) -> JsonObject:
    cursor = None if after is None else identifier(after, "batch", "after")
    values = {"tenant_id": caller.tenant_id, "after": cursor, "limit": limit + 1}
    with ponder.engine.connect() as connection:
        check_cursor(connection, _CURSOR, values)
        return page(batch_objects(connection, connection.execute(_LIST, values).all()), limit)


@router.get("/{batch_id}")
def get_batch(batch_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    with ponder.engine.connect() as connection:
        return _one(connection, caller.tenant_id, batch_id)


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    with ponder.engine.begin() as connection:
        cancel(connection, caller.tenant_id, identifier(batch_id, "batch"))
        return _one(connection, caller.tenant_id, batch_id)


@router.post("/{batch_id}/retry")
def retry_batch(
    batch_id: str, ponder: Ponder, caller: Tenant, span: Traced, idempotency_key: IdempotencyKey = None
) -> JsonObject:
    """Makes a new batch of the failed and expired jobs of an ended one."""
    new_batch_id = f"batch_{secrets.token_hex(12)}"
    with ponder.engine.begin() as connection:
        retried_by = retry(
            connection,
            caller.tenant_id,
            identifier(batch_id, "batch"),
            new_batch_id=new_batch_id,
            key_id=caller.key_id,
            idempotency_key=idempotency_key,
            most_open=_most_open(ponder, caller),
            traceparent=span.traceparent,
        )
        found = _one(connection, caller.tenant_id, retried_by)
    if retried_by == new_batch_id:
        span.end(new_batch_id, caller.tenant_id)
    return found


@router.patch("/{batch_id}")
def change_batch(batch_id: str, body: Change, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Changes the budget, pause, pilot, priority or completion window of a batch that has not ended."""
    with ponder.engine.begin() as connection:
        change(connection, caller.tenant_id, identifier(batch_id, "batch"), body)
        return _one(connection, caller.tenant_id, batch_id)


@router.get("/{batch_id}/jobs")
def list_jobs(
    batch_id: str,
    ponder: Ponder,
    caller: Tenant,
    *,
    limit: Limit = 100,
    after: After = None,
    state: JobState | None = None,
    custom_id: Annotated[StorableText | None, Query(max_length=512)] = None,
) -> JsonObject:
    """Lists the jobs of a batch by line, without search trees."""
    with ponder.engine.connect() as connection:
        _require(connection, caller.tenant_id, batch_id)
        values = {
            "tenant_id": caller.tenant_id,
            "batch_id": batch_id,
            "after": None if after is None else job_number(after, "after"),
            "state": state,
            "custom_id": custom_id,
            "limit": limit + 1,
        }
        check_cursor(connection, _JOBS_CURSOR, values)
        return page([job_summary(row) for row in connection.execute(_JOBS, values)], limit)


def _most_open(ponder: Services, caller: Caller) -> int | None:
    return None if caller.is_operator else ponder.settings.max_open_batches


def _one(connection: Connection, tenant_id: str, batch_id: str) -> JsonObject:
    values = {"id": identifier(batch_id, "batch"), "tenant_id": tenant_id}
    rows = connection.execute(_FIND, values).all()
    if not rows:
        raise NotFound(f"there is no batch {batch_id}", param="batch_id")
    return batch_object(connection, rows[0])


def _require(connection: Connection, tenant_id: str, batch_id: str) -> None:
    values = {"id": identifier(batch_id, "batch"), "tenant_id": tenant_id}
    if connection.execute(_FIND, values).first() is None:
        raise NotFound(f"there is no batch {batch_id}", param="batch_id")
