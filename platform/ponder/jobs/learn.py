"""What the settled jobs of a batch have taught: sums of numbers, the same whoever adds first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, text

from ponder.store.document import dumps

Sums = Mapping[str, float]

# Added up as numerics, so that no order of adding makes another sum; batches by id, because each row stays locked.
_ADD = text("""
    INSERT INTO learnings (batch_id, sums)
    SELECT batch_id, jsonb_object_agg(name, value)
    FROM (
        SELECT batch_id, name, sum(value) AS value
        FROM json_to_recordset(CAST(:lessons AS json)) AS lesson(batch_id text, name text, value numeric)
        GROUP BY batch_id, name
    ) AS taught
    GROUP BY batch_id ORDER BY batch_id
    ON CONFLICT (batch_id) DO UPDATE SET sums = (
        SELECT jsonb_object_agg(name, value) FROM (
            SELECT name, sum(CAST(value AS numeric)) AS value
            FROM (
                SELECT * FROM jsonb_each_text(learnings.sums) UNION ALL SELECT * FROM jsonb_each_text(excluded.sums)
            ) AS both_sums(name, value)
            GROUP BY name
        ) AS added
    )
    RETURNING batch_id, sums
""")


def learn(connection: Connection, lessons: Iterable[tuple[str, Sums]]) -> dict[str, Sums]:
    """Adds each lesson (batch, numbers by name) to its batch's sums. Returns the new sums of these batches."""
    rows = [
        {"batch_id": batch_id, "name": name, "value": value}
        for batch_id, sums in lessons
        for name, value in sums.items()
    ]
    if not rows:
        return {}
    return {row.batch_id: row.sums for row in connection.execute(_ADD, {"lessons": dumps(rows)})}
