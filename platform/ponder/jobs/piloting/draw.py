"""Draws the pilot of a new batch."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.domain.batch.options import Pilot
from ponder.domain.state import Lane

_JOBS_A_SHARD = 16
"""Small, so that several workers share the pilot."""

# The order of the digests is as good as random, and the same for every batch of the same jobs.
_DRAW = text(f"""
    WITH drawn AS MATERIALIZED (
        SELECT id, line, tenant_id, model, fingerprint, estimated_tokens FROM jobs WHERE batch_id = :batch_id
        ORDER BY sha256(convert_to(custom_id, 'UTF8')), line LIMIT :num_jobs
    ), pilot AS (
        INSERT INTO pilots (batch_id, job_ids, must_confirm)
        SELECT :batch_id, array_agg(id ORDER BY line), :must_confirm FROM drawn HAVING count(*) > 0
    ), uncut AS (
        UPDATE portions SET uncut_tokens = uncut_tokens - taken.tokens
        FROM (
            SELECT model, fingerprint, sum(estimated_tokens) AS tokens FROM drawn GROUP BY model, fingerprint
        ) AS taken
        WHERE batch_id = :batch_id AND portions.model = taken.model AND portions.fingerprint = taken.fingerprint
    ), numbered AS (
        SELECT *, (row_number() OVER (PARTITION BY model, fingerprint ORDER BY line) - 1) / {_JOBS_A_SHARD} AS number
        FROM drawn
    )
    INSERT INTO shards (tenant_id, batch_id, model, fingerprint, lane, job_ids, estimated_tokens, least_tokens)
    SELECT tenant_id, :batch_id, model, fingerprint, :lane, array_agg(id ORDER BY line), sum(estimated_tokens), (
        SELECT least_tokens FROM portions
        WHERE batch_id = :batch_id AND model = numbered.model AND fingerprint = numbered.fingerprint
    )
    FROM numbered GROUP BY tenant_id, model, fingerprint, number ORDER BY min(line)
""")


def draw(connection: Connection, batch_id: str, pilot: Pilot, *, lane: Lane) -> None:
    """Draws the jobs of a pilot at random and cuts them into shards. They are real jobs of the batch.

    Until the pilot has passed, nothing else of the batch is cut (see `dispatching/cut.py`).
    """
    values = {"batch_id": batch_id, "num_jobs": pilot.jobs, "must_confirm": pilot.confirm, "lane": lane.value}
    connection.execute(_DRAW, values)
