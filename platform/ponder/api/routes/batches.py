"""The routes of /v1/batches."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from sqlalchemy import Connection, Row, text

from ponder.api.auth import Caller, Tenant
from ponder.api.batch_object import batch_object, batch_objects
from ponder.api.job_list import JobChoice, Order, SortKey, job_list
from ponder.api.page import After, Limit, check_cursor, page
from ponder.api.request_span import Traced
from ponder.api.services import Ponder, Services, identifier, job_number
from ponder.api.submitted import SUBMISSION, raw_body
from ponder.domain.batch.submission import Change
from ponder.domain.dimension import read_moment
from ponder.domain.state import BatchState, JobState, Verdict
from ponder.domain.storable import JsonObject, StorableText
from ponder.errors import NotFound
from ponder.jobs.batch.cancel import cancel
from ponder.jobs.batch.change import change
from ponder.jobs.batch.history import history
from ponder.jobs.batch.retry import retry
from ponder.jobs.batch.submit import submit
from ponder.store.retention import EXPIRED_AT
from ponder.store.tables import batches

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_Moment = Annotated[str | None, Query(max_length=40, description="an ISO date or time, UTC by default")]
_Bound = Annotated[int | None, Query(ge=0, lt=2**63)]
IdempotencyKey = Annotated[StorableText | None, Header(min_length=1, max_length=255)]

_FIND = text(f"""
    SELECT batches.*, {EXPIRED_AT} AS results_expired_at FROM batches WHERE id = :id AND tenant_id = :tenant_id
""")
_OPTIONS_BYTES = 4_096
"""Lists leave out longer options, which may be a megabyte per batch."""
_SEARCHED = """
    concat_ws(' ', id, (SELECT filename FROM files WHERE files.id = input_file_id),
              (SELECT string_agg(key || '=' || value, ' ') FROM jsonb_each_text(metadata)))"""
_LIST = text(
    f"""
    SELECT {", ".join(column.name for column in batches.columns if column.name != "options")},
           CASE WHEN pg_column_size(options) <= {_OPTIONS_BYTES} THEN
               CASE WHEN octet_length(CAST(options AS text)) <= {_OPTIONS_BYTES} THEN options END
           END AS options, {EXPIRED_AT} AS results_expired_at
    FROM batches
    WHERE tenant_id = :tenant_id
      AND (CAST(:state AS text) IS NULL OR state = :state)
      AND (CAST(:model AS text) IS NULL
           OR EXISTS (SELECT FROM cost_totals WHERE batch_id = batches.id AND model = :model))
      AND (CAST(:search AS text) IS NULL OR strpos(lower({_SEARCHED}), lower(:search)) > 0)
      AND created_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
      AND created_at < coalesce(CAST(:until AS timestamptz), 'infinity')
      AND (CAST(:after AS text) IS NULL
           OR (created_at, id) < (SELECT created_at, id FROM batches WHERE id = :after AND tenant_id = :tenant_id))
    ORDER BY created_at DESC, id DESC LIMIT :limit
    """
)
_CURSOR = text("SELECT 1 FROM batches WHERE id = :after AND tenant_id = :tenant_id")


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
def list_batches(
    ponder: Ponder,
    caller: Tenant,
    *,
    limit: Limit = 20,
    after: After = None,
    state: BatchState | None = None,
    model: Annotated[StorableText | None, Query(max_length=512, description="of any of its jobs")] = None,
    search: Annotated[
        StorableText | None,
        Query(
            max_length=200, description="a part of the id, of the input file's name, or of KEY=VALUE of the metadata"
        ),
    ] = None,
    since: _Moment = None,
    until: _Moment = None,
) -> JsonObject:
    """Lists the batches, newest first. `since` and `until` are of their submission."""
    values = {
        "tenant_id": caller.tenant_id,
        "after": None if after is None else identifier(after, "batch", "after"),
        "state": state,
        "model": model,
        "search": search,
        "since": read_moment(since, "since"),
        "until": read_moment(until, "until"),
        "limit": limit + 1,
    }
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


@router.get("/{batch_id}/history")
def get_history(batch_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Returns what the batch gained in each stretch of its time, without those in which it gained nothing."""
    with ponder.engine.connect() as connection:
        found = history(connection, caller.tenant_id, identifier(batch_id, "batch"))
    return {
        "object": "batch_history",
        "batch_id": batch_id,
        "begin_at": found.begin_s,
        "end_at": found.end_s,
        "seconds": found.length_s,
        "data": [_stretch(row) for row in found.stretches],
    }


@router.get("/{batch_id}/jobs")
def list_jobs(
    batch_id: str,
    ponder: Ponder,
    caller: Tenant,
    *,
    limit: Limit = 100,
    after: After = None,
    state: JobState | None = None,
    verdict: Verdict | None = None,
    level: Annotated[StorableText | None, Query(max_length=512)] = None,
    custom_id: Annotated[StorableText | None, Query(max_length=512)] = None,
    custom_id_prefix: Annotated[StorableText | None, Query(max_length=512)] = None,
    min_tokens: _Bound = None,
    max_tokens: _Bound = None,
    min_nanodollars: _Bound = None,
    max_nanodollars: _Bound = None,
    sort: SortKey = "line",
    order: Order = "asc",
) -> JsonObject:
    """Lists the jobs of a batch, without search trees. By tokens or cost, only settled jobs are listed."""
    choice = JobChoice(
        state=state,
        verdict=verdict,
        level=level,
        custom_id=custom_id,
        custom_id_prefix=custom_id_prefix,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        min_nanodollars=min_nanodollars,
        max_nanodollars=max_nanodollars,
        sort=sort,
        order=order,
    )
    cursor = None if after is None else job_number(after, "after")
    with ponder.engine.connect() as connection:
        batch = _find(connection, caller.tenant_id, batch_id)
        return page(job_list(connection, batch, choice, cursor, limit + 1), limit)


def _most_open(ponder: Services, caller: Caller) -> int | None:
    return None if caller.is_operator else ponder.settings.max_open_batches


def _one(connection: Connection, tenant_id: str, batch_id: str) -> JsonObject:
    return batch_object(connection, _find(connection, tenant_id, batch_id))


def _find(connection: Connection, tenant_id: str, batch_id: str) -> Row[Any]:
    values = {"id": identifier(batch_id, "batch"), "tenant_id": tenant_id}
    found = connection.execute(_FIND, values).first()
    if found is None:
        raise NotFound(f"there is no batch {batch_id}", param="batch_id")
    return found


def _stretch(row: Row[Any]) -> JsonObject:
    return {
        "at": float(row.begin_s),
        "completed": row.num_completed,
        "failed": row.num_failed,
        "verdicts": {"passed": row.num_passed, "failed": row.num_judged_wrong, "unverified": row.num_unverified},
        "input_tokens": row.prompt_tokens,
        "generated_tokens": row.generated_tokens,
        "direct_nanodollars": row.direct_nanodollars,
    }
