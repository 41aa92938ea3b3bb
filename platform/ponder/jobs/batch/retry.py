"""Retries the failed jobs of a batch."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import Connection, text

from ponder.domain.batch.stages import Pin
from ponder.domain.batch.window import window_s
from ponder.errors import Conflict, Gone, NotFound
from ponder.jobs.batch.submit import Idempotency, check_open, repeated
from ponder.jobs.estimating.survey import store_survey, stored_survey
from ponder.jobs.served import served_models
from ponder.jobs.shard import add_portions
from ponder.jobs.wake import wake
from ponder.store.job_state import JOB_STATE
from ponder.store.retention import EXPIRED_AT

_ENDED = ("completed", "expired", "cancelled")
_INSERT = text(
    """
    INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, metadata, options, lane, state,
                         idempotency_key, request_sha256, retry_of, key_id, expires_at, in_progress_at,
                         limit_tokens, limit_nanodollars, output_expires_after_s, traceparent)
    SELECT :id, tenant_id, input_file_id, endpoint, completion_window, metadata, options, lane, 'in_progress',
           CAST(:idempotency_key AS text), CAST(:sha256 AS bytea), id, CAST(:key_id AS text),
           clock_timestamp() + make_interval(secs => :window_s), clock_timestamp(),
           limit_tokens, limit_nanodollars, output_expires_after_s, CAST(:traceparent AS text)
    FROM batches WHERE id = :batch_id AND tenant_id = :tenant_id
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
    RETURNING id
    """
)
_JOBS = text(
    f"""
    INSERT INTO jobs (tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy, level,
                      oracle, judged, estimated_tokens)
    SELECT jobs.tenant_id, :id, line, custom_id, model, coalesce(served.value ->> 'fingerprint', fingerprint),
           CASE WHEN jsonb_exists(request, 'stages') THEN jsonb_set(request, '{{stages}}', (
               SELECT jsonb_agg(pin || coalesce(CAST(:pins AS jsonb) -> (pin ->> 'model'), '{{}}') ORDER BY place)
               FROM jsonb_array_elements(request -> 'stages') WITH ORDINALITY AS stage(pin, place)
           )) ELSE request END,
           strategy, level, oracle, judged, estimated_tokens
    FROM jobs JOIN batches ON batches.id = batch_id
    LEFT JOIN jsonb_each(CAST(:pins AS jsonb)) AS served ON served.key = model
    WHERE batch_id = :batch_id AND jobs.tenant_id = :tenant_id AND {JOB_STATE} IN ('failed', 'expired')
    ORDER BY line
    """
)

_UNCALIBRATED = text(f"""
    SELECT pin ->> 'model' FROM jobs JOIN batches ON batches.id = batch_id
    CROSS JOIN LATERAL jsonb_array_elements(request -> 'stages') AS pin
    WHERE batch_id = :batch_id AND jobs.tenant_id = :tenant_id AND {JOB_STATE} IN ('failed', 'expired')
      AND jsonb_exists(pin, 'calibration')
      AND pin ->> 'fingerprint' <> CAST(:pins AS jsonb) -> (pin ->> 'model') ->> 'fingerprint'
    LIMIT 1
""")

_LEAST_TOKENS = text("""
    SELECT model, least_tokens FROM portions WHERE batch_id = :batch_id AND least_tokens IS NOT NULL AND EXISTS (
        SELECT FROM jobs
        WHERE batch_id = :id AND jobs.model = portions.model AND jobs.fingerprint = portions.fingerprint
    )
""")


def retry(
    connection: Connection,
    tenant_id: str,
    batch_id: str,
    *,
    new_batch_id: str,
    key_id: str | None = None,
    idempotency_key: str | None = None,
    most_open: int | None = None,
    traceparent: str | None = None,
) -> str:
    """Makes a new batch of the failed and expired jobs of an ended one, in progress at once. Returns its id.

    Custom ids and line numbers stay, and there is no pilot. The jobs are pinned to the weights that are served now.
    Raises NotFound, Conflict if the batch has not ended, none of its jobs failed or a calibration is of other weights,
    and LimitReached as `submit` does.
    """
    sha256 = hashlib.sha256(f"retry {batch_id}".encode()).digest()
    earlier = repeated(connection, tenant_id, Idempotency(idempotency_key, sha256))
    if earlier is not None:
        return earlier
    window = _window_of_ended(connection, tenant_id, batch_id)
    check_open(connection, tenant_id, most_open)
    values = {"id": new_batch_id, "batch_id": batch_id, "tenant_id": tenant_id, "window_s": window}
    values |= {"key_id": key_id, "traceparent": traceparent}
    values |= {"idempotency_key": idempotency_key, "sha256": sha256}
    if connection.execute(_INSERT, values).scalar() is None:
        earlier = repeated(connection, tenant_id, Idempotency(idempotency_key, sha256))
        assert earlier is not None, "only a used Idempotency-Key keeps the batch from being made"
        return earlier
    num_jobs = _copy_jobs(connection, tenant_id, batch_id, new_batch_id)
    if num_jobs == 0:
        raise Conflict(f"no job of {batch_id} failed or expired: there is nothing to retry")
    connection.execute(text("UPDATE batches SET num_lines = :n WHERE id = :id"), {"n": num_jobs, "id": new_batch_id})
    add_portions(connection, new_batch_id, _least_tokens(connection, batch_id, new_batch_id))
    wake(connection)
    return new_batch_id


def _least_tokens(connection: Connection, batch_id: str, new_batch_id: str) -> dict[str, int]:
    """Returns what the smallest jobs of the earlier batch may generate, of the models whose weights are the same."""
    rows = connection.execute(_LEAST_TOKENS, {"batch_id": batch_id, "id": new_batch_id})
    return {row.model: row.least_tokens for row in rows}


def _window_of_ended(connection: Connection, tenant_id: str, batch_id: str) -> int:
    batch = connection.execute(
        # Shared, so that its prompts are not pruned before they are copied.
        text(
            f"SELECT state, completion_window, {EXPIRED_AT} AS expired_at FROM batches"
            " WHERE id = :id AND tenant_id = :tenant_id FOR SHARE"
        ),
        {"id": batch_id, "tenant_id": tenant_id},
    ).first()
    if batch is None:
        raise NotFound(f"there is no batch {batch_id}", param="batch_id")
    if batch.state not in _ENDED:
        raise Conflict(f"the batch is {batch.state}; its jobs can be retried when it is one of {', '.join(_ENDED)}")
    if batch.expired_at is not None:
        raise Gone(f"the prompts of {batch_id} expired on {batch.expired_at:%Y-%m-%d}: submit its file again")
    return window_s(batch.completion_window)


def _copy_jobs(connection: Connection, tenant_id: str, batch_id: str, new_batch_id: str) -> int:
    models = served_models(connection).values()
    pins = {model.name: Pin(model.name, model.fingerprint, model.context_length).document() for model in models}
    values = {"batch_id": batch_id, "tenant_id": tenant_id, "pins": json.dumps(pins)}
    changed = connection.execute(_UNCALIBRATED, values).scalar()
    if changed is not None:
        raise Conflict(f"{changed} has other weights than those that the cascade is calibrated for: submit it again")
    copied = connection.execute(_JOBS, values | {"id": new_batch_id})
    survey = stored_survey(connection, batch_id)
    if survey is not None:  # its shares of cells are taken to be those of the failed jobs
        store_survey(connection, new_batch_id, survey.pinned({model.name: model.fingerprint for model in models}))
    return copied.rowcount
