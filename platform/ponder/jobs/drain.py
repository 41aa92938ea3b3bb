"""Asks a worker to leave without interrupting what it can still finish."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.jobs.wake import wake

_ASK = text("""
    UPDATE incarnations
    SET drain_until = least(drain_until, clock_timestamp() + CAST(:within_s AS float8) * interval '1 second')
    WHERE id = :id AND state <> 'ended' AND lease_until > clock_timestamp()
    RETURNING id
""")


def ask_to_drain(connection: Connection, incarnation_id: str, *, within_s: float) -> bool:
    """Asks an incarnation to take nothing more, and to leave once it is empty or `within_s` seconds have passed.

    From now on it claims no shard and is no capacity. It learns of this with its next tick, and hands back what it
    could not finish. Asking again can only shorten the time. Returns False if the incarnation is not alive.
    """
    assert within_s >= 0, f"{within_s} s to drain"
    asked = connection.execute(_ASK, {"id": incarnation_id, "within_s": within_s}).first() is not None
    if asked:
        wake(connection)
    return asked
