"""Whether batches are moved along: what the active dispatcher writes about itself, and what may be read from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

_MISSED_AFTER_S = 60
"""Many rounds long: one that finishes a huge batch takes a while."""

_RECORD = text("""
    INSERT INTO dispatcher (seen_at, error, error_at, failing_since)
    VALUES (statement_timestamp(), :error, CASE WHEN :fails THEN statement_timestamp() END,
            CASE WHEN :fails THEN statement_timestamp() END)
    ON CONFLICT (is_only) DO UPDATE SET
        seen_at = excluded.seen_at,
        error = coalesce(excluded.error, dispatcher.error),
        error_at = coalesce(excluded.error_at, dispatcher.error_at),
        failing_since = CASE WHEN :fails THEN coalesce(dispatcher.failing_since, excluded.failing_since) END
""")

_READ = text("""
    SELECT seen_at, error, error_at, failing_since,
           seen_at > clock_timestamp() - :missed_after_s * interval '1 second' AS is_running
    FROM dispatcher
""")


@dataclass(frozen=True, slots=True)
class DispatcherStatus:
    """The state of dispatching. Only the active dispatcher writes it; `error` is the last one and may be over."""

    is_running: bool
    seen_at: datetime | None = None
    error: str | None = None
    error_at: datetime | None = None
    failing_since: datetime | None = None

    @property
    def last_error(self) -> dict[str, str] | None:
        """Its message and its time, also when it is over."""
        if self.error is None or self.error_at is None:
            return None
        return {"message": self.error, "at": self.error_at.astimezone(UTC).isoformat(timespec="seconds")}

    @property
    def is_ok(self) -> bool:
        return self.is_running and self.failing_since is None

    def __str__(self) -> str:
        if not self.is_running:
            return f"not running: {f'last seen {_moment(self.seen_at)}' if self.seen_at else 'never seen'}"
        return "ok" if self.failing_since is None else f"fails since {_moment(self.failing_since)}: {self.error}"


def record(connection: Connection, error: str | None) -> None:
    """Says that a round was done just now, and what failed in it; the error is shown to everybody."""
    connection.execute(_RECORD, {"error": error, "fails": error is not None})


def dispatcher_status(connection: Connection) -> DispatcherStatus:
    row = connection.execute(_READ, {"missed_after_s": _MISSED_AFTER_S}).one_or_none()
    return DispatcherStatus(is_running=False) if row is None else DispatcherStatus(**row._mapping)


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
