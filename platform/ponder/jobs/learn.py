"""Sums of numbers that the settled jobs of a batch report, independent of the order of adding.

A name is `scope:name`: only jobs of the same scope, the same models and strategy, learn from each other (see
`ponder.domain.batch.stages`). When a batch ends, its tenant keeps its sums by scope, as a start for later ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Connection, text

from ponder.store.document import dumps
from ponder.store.folding import added_up, lock_folding

Sums = Mapping[str, float]

_FOLDING = 0x6C6561726E  # "learn"
_REMEMBERING = 0x6B6E6F77  # "know"

# Lessons are appended: if workers updated a shared sum, one frozen in its transaction would stop all others.
_APPEND = text("""
    INSERT INTO lessons (batch_id, sums)
    SELECT batch_id, jsonb_object_agg(name, value)
    FROM (
        SELECT batch_id, name, sum(value) AS value
        FROM json_to_recordset(CAST(:lessons AS json)) AS lesson(batch_id text, name text, value numeric)
        GROUP BY batch_id, name
    ) AS taught
    GROUP BY batch_id
""")

_LEARNED = text(
    added_up(
        "batch_id",
        """
            SELECT batch_id, sums FROM learnings WHERE batch_id = ANY(CAST(:batch_ids AS text[]))
            UNION ALL
            SELECT batch_id, sums FROM lessons WHERE batch_id = ANY(CAST(:batch_ids AS text[]))
        """,
    )
)

_TOTAL = added_up(
    "batch_id",
    """
        SELECT batch_id, sums FROM taken
        UNION ALL
        SELECT batch_id, sums FROM learnings WHERE batch_id IN (SELECT batch_id FROM taken)
    """,
)

_FOLD = text(f"""
    WITH taken AS (
        DELETE FROM lessons WHERE id IN (SELECT id FROM lessons ORDER BY id LIMIT 10000) RETURNING batch_id, sums
    )
    INSERT INTO learnings (batch_id, sums) SELECT batch_id, sums FROM ({_TOTAL}) AS total ORDER BY batch_id
    ON CONFLICT (batch_id) DO UPDATE SET sums = excluded.sums
""")


_DECAY = "CAST(power(0.5, extract(epoch FROM clock_timestamp() - learnt_at) / 604800) AS numeric)"

_FORMER = text(f"""
    SELECT scope, sums, {_DECAY} AS decay FROM tenant_learnings
    WHERE tenant_id = :tenant_id AND scope = ANY(CAST(:scopes AS text[]))
""")

_REMEMBER = text(f"""
    WITH taught AS (
        SELECT tenant_id, split_part(name, ':', 1) AS scope, split_part(name, ':', 2) AS name,
               CAST(value AS numeric) AS value
        FROM ({_LEARNED.text}) AS learned JOIN batches ON batches.id = batch_id
        CROSS JOIN LATERAL jsonb_each_text(sums) AS each(name, value)
        WHERE name LIKE '%:%'
    ), known AS (
        SELECT tenant_id, scope, name, CAST(value AS numeric) * {_DECAY} AS value
        FROM tenant_learnings CROSS JOIN LATERAL jsonb_each_text(sums) AS each(name, value)
        WHERE (tenant_id, scope) IN (SELECT tenant_id, scope FROM taught)
    ), added AS (
        SELECT tenant_id, scope, name, round(sum(value), 9) AS value
        FROM (SELECT * FROM taught UNION ALL SELECT * FROM known) AS every GROUP BY tenant_id, scope, name
    )
    INSERT INTO tenant_learnings (tenant_id, scope, sums, learnt_at)
    SELECT tenant_id, scope, jsonb_object_agg(name, value), clock_timestamp()
    FROM added GROUP BY tenant_id, scope ORDER BY tenant_id, scope
    ON CONFLICT (tenant_id, scope) DO UPDATE SET sums = excluded.sums, learnt_at = excluded.learnt_at
""")


_FORGET = text("DELETE FROM tenant_learnings WHERE learnt_at < clock_timestamp() - interval '26 weeks'")


def learn(connection: Connection, lessons: Iterable[tuple[str, Sums]]) -> dict[str, Sums]:
    """Adds each lesson (batch id, numbers by name) to the sums of its batch. Returns the new sums of these batches."""
    rows = [
        {"batch_id": batch_id, "name": name, "value": value}
        for batch_id, sums in lessons
        for name, value in sums.items()
    ]
    if not rows:
        return {}
    connection.execute(_APPEND, {"lessons": dumps(rows)})
    return learned(connection, {str(row["batch_id"]) for row in rows})


def learned(connection: Connection, batch_ids: Collection[str]) -> dict[str, Sums]:
    """Returns the sums by batch, without batches that have none."""
    rows = connection.execute(_LEARNED, {"batch_ids": sorted(batch_ids)})
    return {row.batch_id: row.sums for row in rows}


def remember(connection: Connection, batch_ids: Collection[str]) -> None:
    """Adds what ended batches have taught to what their tenants know. To be called once for each batch."""
    lock_folding(connection, _REMEMBERING)
    connection.execute(_REMEMBER, {"batch_ids": sorted(batch_ids)})


def former(connection: Connection, tenant_id: str, scopes: Collection[str]) -> Sums:
    """Returns what the tenant's ended batches taught about these scopes, by `scope:name`. It halves with every week."""
    rows = connection.execute(_FORMER, {"tenant_id": tenant_id, "scopes": sorted(scopes)})
    return {f"{row.scope}:{name}": float(value) * float(row.decay) for row in rows for name, value in row.sums.items()}


def forget(connection: Connection) -> None:
    """Deletes what a tenant has known for half a year without a further lesson: almost nothing is left of it."""
    connection.execute(_FORGET)


def fold(connection: Connection) -> None:
    """Folds up to 10,000 appended lessons into the sums, so that they are read faster. The totals stay the same."""
    lock_folding(connection, _FOLDING)
    connection.execute(_FOLD)
