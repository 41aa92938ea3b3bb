"""Sums of numbers that the settled jobs of a batch report, independent of the order of adding."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Connection, text

from ponder.store.document import dumps
from ponder.store.folding import added_up, lock_folding

Sums = Mapping[str, float]

_FOLDING = 0x6C6561726E  # "learn"

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


def fold(connection: Connection) -> None:
    """Folds up to 10,000 appended lessons into the sums, so that they are read faster. The totals stay the same."""
    lock_folding(connection, _FOLDING)
    connection.execute(_FOLD)
