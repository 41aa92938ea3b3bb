"""Turns a submission into a batch that waits for its validation."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, text

from ponder.domain.batch.submission import Submission
from ponder.domain.batch.window import window_s
from ponder.domain.budget import BatchBudget
from ponder.domain.state import Lane
from ponder.errors import Conflict, LimitReached, NotFound
from ponder.jobs.validation.calibrate import calibrations
from ponder.jobs.wake import wake
from ponder.jobs.webhooks.subscription import check_webhook
from ponder.settings import Settings
from ponder.store.retention import INPUT_EXPIRED_AT

_INSERT = text(
    f"""
    INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, metadata, options, lane,
                         idempotency_key, request_sha256, key_id, expires_at, limit_tokens, limit_nanodollars,
                         output_expires_after_s, traceparent)
    SELECT :id, tenant_id, id, :endpoint, :completion_window, CAST(:metadata AS jsonb), CAST(:options AS jsonb), :lane,
           CAST(:idempotency_key AS text), CAST(:sha256 AS bytea), CAST(:key_id AS text),
           clock_timestamp() + make_interval(secs => :window_s),
           CAST(:limit_tokens AS bigint), CAST(:limit_nanodollars AS bigint),
           coalesce(CAST(:output_expires_after_s AS integer),
                    (SELECT output_expires_after_s FROM tenants WHERE tenants.id = files.tenant_id)),
           CAST(:traceparent AS text)
    FROM files
    WHERE id = :file_id AND tenant_id = :tenant_id AND kind = 'input' AND deleted_at IS NULL
      AND {INPUT_EXPIRED_AT} IS NULL
    FOR SHARE
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
    RETURNING id
    """
)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's idempotency key and the hash of the request it was used for."""

    key: str | None
    sha256: bytes


# One submission of a tenant at a time, from the count until its commit.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('open batches of ' || :tenant_id, 0))")
_NUM_OPEN = text(
    """
    SELECT count(*) FROM batches
    WHERE tenant_id = :tenant_id AND state IN ('validating', 'in_progress', 'cancelling')
    """
)


def submit(
    connection: Connection,
    tenant_id: str,
    submission: Submission,
    settings: Settings,
    *,
    batch_id: str,
    key_id: str | None = None,
    idempotency_key: str | None = None,
    most_open: int | None = None,
    traceparent: str | None = None,
) -> str:
    """Returns the id of the new batch, or of the one that the same request with the same key made before.

    Raises NotFound for an unknown file, InvalidInput or Conflict for a webhook that could not be called, InvalidInput
    for a strategy that cannot be calibrated, Conflict for a key that was used for another request, and LimitReached if
    the tenant already has `most_open` batches that have not ended. None means no limit. `key_id` is the caller's API
    key. `traceparent` names the span of this submission, if it is traced.
    """
    idempotency = Idempotency(idempotency_key, submission.sha256())
    earlier = repeated(connection, tenant_id, idempotency)
    if earlier is not None:
        return earlier
    check_webhook(connection, settings, tenant_id, submission.ponder.webhook)
    calibrations(connection, tenant_id, submission.ponder)
    check_open(connection, tenant_id, most_open)
    budget = submission.ponder.batch_budget or BatchBudget()
    inserted = connection.execute(
        _INSERT,
        {
            "id": batch_id,
            "tenant_id": tenant_id,
            "file_id": submission.input_file_id,
            "endpoint": submission.endpoint,
            "completion_window": submission.completion_window,
            "metadata": json.dumps(submission.metadata or {}),
            "options": submission.ponder.model_dump_json(by_alias=True, exclude_unset=True),
            "lane": submission.ponder.priority or Lane.BATCH,
            "idempotency_key": idempotency.key,
            "sha256": idempotency.sha256,
            "key_id": key_id,
            "window_s": window_s(submission.completion_window),
            "limit_tokens": budget.tokens,
            "limit_nanodollars": budget.limit_nanodollars,
            "output_expires_after_s": submission.output_expires_after and submission.output_expires_after.seconds,
            "traceparent": traceparent,
        },
    ).scalar()
    if inserted is None:  # there is no such file, or another connection has just used the same key
        earlier = repeated(connection, tenant_id, idempotency)
        if earlier is None:
            raise NotFound(f"there is no input file {submission.input_file_id}", param="input_file_id")
        return earlier
    wake(connection)
    return batch_id


def check_open(connection: Connection, tenant_id: str, most: int | None) -> None:
    """Checks that this transaction may make another batch. Raises LimitReached."""
    if most is None:
        return
    connection.execute(_LOCK, {"tenant_id": tenant_id})
    if connection.execute(_NUM_OPEN, {"tenant_id": tenant_id}).scalar_one() >= most:
        raise LimitReached(
            f"{most} batches have not ended yet, and no more are accepted until one has (PONDER_MAX_OPEN_BATCHES)",
            code="too_many_open_batches",
            retry_after_s=60,
            is_passing=False,
        )


def repeated(connection: Connection, tenant_id: str, idempotency: Idempotency) -> str | None:
    """Returns the batch that the same request made before, if any. Raises Conflict if the key made another one."""
    if idempotency.key is None:
        return None
    earlier = connection.execute(
        text("SELECT id, request_sha256 FROM batches WHERE tenant_id = :tenant_id AND idempotency_key = :key"),
        {"tenant_id": tenant_id, "key": idempotency.key},
    ).first()
    if earlier is None:
        return None
    if bytes(earlier.request_sha256) != idempotency.sha256:
        raise Conflict("this Idempotency-Key was used for a different request")
    return str(earlier.id)
