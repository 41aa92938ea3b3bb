"""Folding of appended rows: writers only append, so that none waits for another, and one process adds the rows up."""

from __future__ import annotations

from sqlalchemy import Connection, text


def lock_folding(connection: Connection, key: int) -> None:
    """Holds the advisory lock of one kind of rows until the transaction ends. Waits a second for it, then raises.

    Nothing depends on one round of folding; the next one will do.
    """
    connection.execute(text("SET LOCAL lock_timeout = '1s'"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({key})"))


def added_up(key: str, taught: str) -> str:
    """Returns the query that adds up by key, which is a list of columns, the sums that another query returns."""
    # Numerics, so that the sum does not depend on the order of adding.
    return f"""
        SELECT {key}, jsonb_object_agg(name, value) AS sums
        FROM (
            SELECT {key}, name, sum(CAST(value AS numeric)) AS value
            FROM ({taught}) AS taught CROSS JOIN LATERAL jsonb_each_text(sums) AS each(name, value)
            GROUP BY {key}, name
        ) AS added
        GROUP BY {key}
    """
