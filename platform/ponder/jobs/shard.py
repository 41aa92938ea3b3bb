"""The portions that a batch is cut from, and the moves of its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, TextClause, text

from ponder.jobs.tally import tally_lines
from ponder.store.document import dumps

MAX_JOBS = 256
"""The most jobs in one shard."""

_ADD_PORTIONS = text("""
    INSERT INTO portions (batch_id, model, fingerprint, tenant_id, last_line, uncut_tokens, least_tokens)
    SELECT batch_id, model, fingerprint, tenant_id, max(line), sum(estimated_tokens),
           CAST(CAST(:least_tokens AS jsonb) ->> model AS bigint)
    FROM jobs WHERE batch_id = :batch_id
    GROUP BY batch_id, model, fingerprint, tenant_id
""")

_HOLD = text("UPDATE shards SET state = 'held', holder = :holder, held_at = clock_timestamp() WHERE id = :id")


def _finish(which: str) -> TextClause:
    """Locks the shards in the order of their ids, as everybody does. `at` NULL means now."""
    return text(f"""
        UPDATE shards SET state = 'finished', finished_at = coalesce(CAST(:at AS timestamptz), clock_timestamp())
        WHERE id IN (SELECT id FROM shards WHERE {which} ORDER BY id FOR NO KEY UPDATE)
        RETURNING id
    """)


_FINISH_ONE = _finish("id = :id")
_FINISH_QUEUED = _finish("batch_id = ANY(CAST(:batch_ids AS text[])) AND state = 'queued'")
_FINISH_HELD = _finish("""
    holder = :holder AND state = 'held'
    AND (CAST(:batch_ids AS text[]) IS NULL OR batch_id = ANY(CAST(:batch_ids AS text[])))
""")
_FINISH_SETTLED = _finish("""
    holder = :holder AND state = 'held' AND NOT EXISTS (
        SELECT FROM attempts WHERE incarnation_id = :holder AND ended_at IS NULL AND shard_id = shards.id
    )
""")


def add_portions(connection: Connection, batch_id: str, least_tokens: Mapping[str, int]) -> None:
    """Makes a portion of each group of a new batch's jobs that need the same weights, so that they can be cut.

    `least_tokens` says for each model the most tokens that the smallest of its jobs may generate, where it is known.
    Also begins the batch's totals.
    """
    connection.execute(_ADD_PORTIONS, {"batch_id": batch_id, "least_tokens": dumps(dict(least_tokens))})
    tally_lines(connection, batch_id)


def hold_shard(connection: Connection, shard_id: int, holder: str) -> None:
    """Makes `holder` the holder of a shard that the caller has locked and seen queued."""
    connection.execute(_HOLD, {"id": shard_id, "holder": holder})


def finish_shard(connection: Connection, shard_id: int) -> None:
    connection.execute(_FINISH_ONE, {"id": shard_id, "at": None})


def finish_queued(connection: Connection, batch_ids: Sequence[str]) -> None:
    """Finishes the shards of ended batches that no worker holds."""
    connection.execute(_FINISH_QUEUED, {"batch_ids": batch_ids, "at": None})


def finish_held(connection: Connection, holder: str, at: datetime, batch_ids: Sequence[str] | None = None) -> list[int]:
    """Finishes what an incarnation holds, of these batches or all; returns the shards' ids."""
    values = {"holder": holder, "at": at, "batch_ids": batch_ids}
    return list(connection.execute(_FINISH_HELD, values).scalars())


def finish_settled(connection: Connection, holder: str, at: datetime) -> None:
    """Finishes the held shards in which no job is left with the incarnation."""
    connection.execute(_FINISH_SETTLED, {"holder": holder, "at": at})
