"""The dispatcher's own account of its rounds: written by the active one, read by the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

_MISSED_AFTER_S = 60
"""Longer than many rounds, because a round that finishes a huge batch takes a while."""

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
        """The errors of the last round, including those that hold no work up."""
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


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
