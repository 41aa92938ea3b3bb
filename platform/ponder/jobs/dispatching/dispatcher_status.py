"""The dispatcher's signs of life in Postgres: the active one's account of its rounds, which the API reads, and a pulse.

The pulse proves that Postgres accepted writes, which tells an outage from the death of a worker. Every dispatcher
writes it each second. While that fails, no worker can extend its lease either.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection, Engine, text

from ponder.failure import brief

_BEAT_S = 1.0
_MISSED_AFTER_S = 60
"""Longer than many rounds, because a round that finishes a huge batch takes a while."""

_log = structlog.get_logger(__name__)

_RECORD = text("""
    INSERT INTO dispatcher (seen_at, error, error_at, failing_since)
    VALUES (statement_timestamp(), CAST(:error AS text),
            CASE WHEN CAST(:error AS text) IS NOT NULL THEN statement_timestamp() END,
            CASE WHEN :holds_work_up THEN statement_timestamp() END)
    ON CONFLICT (is_only) DO UPDATE SET
        seen_at = excluded.seen_at,
        error = coalesce(excluded.error, dispatcher.error),
        error_at = coalesce(excluded.error_at, dispatcher.error_at),
        failing_since = CASE WHEN :holds_work_up THEN coalesce(dispatcher.failing_since, excluded.failing_since) END
""")

_READ = text("""
    SELECT seen_at, error, error_at, failing_since,
           seen_at > clock_timestamp() - :missed_after_s * interval '1 second' AS is_running
    FROM dispatcher
""")


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


@dataclass(frozen=True, slots=True)
class DispatcherStatus:
    """The active dispatcher's last record. `error` is its last one and may be over; `failing_since` is set while errors
    hold work up.
    """

    is_running: bool
    seen_at: datetime | None = None
    error: str | None = None
    error_at: datetime | None = None
    failing_since: datetime | None = None

    @property
    def last_error(self) -> dict[str, str] | None:
        """The last error's message and time, even if it is over."""
        if self.error is None or self.error_at is None:
            return None
        return {"message": self.error, "at": self.error_at.astimezone(UTC).isoformat(timespec="seconds")}

    @property
    def current_error(self) -> str | None:
        """The errors of the last round, including those that delay no work."""
        return self.error if self.error_at == self.seen_at else None

    @property
    def is_ok(self) -> bool:
        return self.is_running and self.failing_since is None

    def __str__(self) -> str:
        if not self.is_running:
            return f"not running: {f'last seen {_moment(self.seen_at)}' if self.seen_at else 'never seen'}"
        return "ok" if self.failing_since is None else f"fails since {_moment(self.failing_since)}: {self.error}"


def record(connection: Connection, error: str | None, *, holds_work_up: bool = False) -> None:
    """Records that a round ended just now and what failed in it. Everybody is shown the error."""
    connection.execute(_RECORD, {"error": error, "holds_work_up": holds_work_up})


def dispatcher_status(connection: Connection) -> DispatcherStatus:
    row = connection.execute(_READ, {"missed_after_s": _MISSED_AFTER_S}).one_or_none()
    return DispatcherStatus(is_running=False) if row is None else DispatcherStatus(**row._mapping)


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


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
