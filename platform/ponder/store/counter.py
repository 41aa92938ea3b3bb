"""Counters of all time, for metrics, so that no scrape adds up the past: writers append, and the dispatcher adds up."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from ponder.store.folding import lock_folding

_FOLDING = 0x636F756E74  # "count"
_AT_A_TIME = 50_000

_FOLD = text(f"""
    WITH taken AS (
        DELETE FROM counter_tallies WHERE id IN (SELECT id FROM counter_tallies ORDER BY id LIMIT {_AT_A_TIME})
        RETURNING *
    )
    INSERT INTO counter_totals AS total (counter, label, amount)
    SELECT counter, label, sum(amount) FROM taken GROUP BY counter, label
    ON CONFLICT (counter, label) DO UPDATE SET amount = total.amount + excluded.amount
""")

_READ = text("""
    SELECT label, sum(amount) FROM (
        SELECT label, amount FROM counter_totals WHERE counter = :counter
        UNION ALL
        SELECT label, amount FROM counter_tallies WHERE counter = :counter
    ) AS added
    GROUP BY label
""")


def fold_counters(connection: Connection) -> None:
    """Adds up to 50,000 appended amounts. Only another dispatcher ever waits for this."""
    lock_folding(connection, _FOLDING)
    connection.execute(_FOLD)


def read_counter(connection: Connection, counter: str) -> Mapping[str, int]:
    """Returns a counter by label. It never falls, whatever is deleted of what was counted."""
    return {label: int(amount) for label, amount in connection.execute(_READ, {"counter": counter})}
