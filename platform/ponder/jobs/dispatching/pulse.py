"""The pulse: proof that Postgres accepted writes, which tells an outage from the death of a worker.

Every dispatcher writes one row each second. While that fails, no worker can extend its lease either.
"""

from __future__ import annotations

import threading
from datetime import datetime

import structlog
from sqlalchemy import Connection, Engine, text

from ponder.failure import brief

_BEAT_S = 1.0

_log = structlog.get_logger(__name__)

# A gap is an outage if it lasted at least half a lease (a shorter one leaves a worker the other half to come back) and
# if the dispatcher itself was not away: it beat before the gap, or Postgres was started during it. A frozen dispatcher
# looks like an outage. An outage that begins in the grace after another one is part of it.
_BEAT = text("""
    INSERT INTO pulse AS last (beat_at, lease_s) VALUES (clock_timestamp(), :lease_s)
    ON CONFLICT (is_only) DO UPDATE SET (beat_at, lease_s, outage_from, grace_until) = (
        SELECT greatest(last.beat_at, excluded.beat_at), excluded.lease_s,
               CASE WHEN NOT is_outage OR last.grace_until >= last.beat_at THEN last.outage_from ELSE last.beat_at END,
               CASE WHEN is_outage THEN excluded.beat_at + lease ELSE last.grace_until END
        FROM (SELECT excluded.lease_s * interval '1 second' AS lease) AS setting CROSS JOIN LATERAL (
            SELECT excluded.beat_at - last.beat_at > lease / 2
               AND (coalesce(CAST(:beat_before AS timestamptz) > last.beat_at - lease / 2, false)
                    OR pg_postmaster_start_time() > last.beat_at) AS is_outage
        ) AS gap
    )
    RETURNING beat_at
""")


def beat(connection: Connection, *, lease_s: float, beat_before: datetime | None) -> datetime:
    """Records that Postgres works now and which outage has just ended. Returns Postgres's time.

    `beat_before` is what the caller's last beat returned, or None for the first.
    """
    at = connection.execute(_BEAT, {"lease_s": lease_s, "beat_before": beat_before}).scalar_one()
    assert isinstance(at, datetime)
    return at


def keep_beating(engine: Engine, *, lease_s: float, stop: threading.Event) -> None:
    """Beats each second until `stop` is set, whatever errors occur."""
    beat_before: datetime | None = None
    while not stop.is_set():
        try:
            with engine.begin() as connection:
                beat_before = beat(connection, lease_s=lease_s, beat_before=beat_before)
        except Exception as error:  # the next beat records the gap
            _log.warning("no_pulse", error=brief(error))
        stop.wait(_BEAT_S)
