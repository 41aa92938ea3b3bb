"""Samples of a worker's load: one small row for a busy incarnation every two seconds, kept for a week."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.jobs.tick_report import WorkerSample

KEPT_DAYS = 7
NUMBERS = tuple(field.name for field in fields(WorkerSample))

_FORGET = text(f"""
    DELETE FROM worker_samples WHERE (incarnation_id, at) IN (
        SELECT incarnation_id, at FROM worker_samples
        WHERE at < clock_timestamp() - interval '{KEPT_DAYS} days' ORDER BY at LIMIT 1000
    )
""")


_KEEP = text(f"""
    INSERT INTO worker_samples (incarnation_id, at, {", ".join(NUMBERS)})
    VALUES (:incarnation_id, CAST(:at AS timestamptz), {", ".join(f":{name}" for name in NUMBERS)})
""")


def keep(connection: Connection, incarnation_id: str, at: datetime, sample: WorkerSample) -> None:
    """Writes the sample of a tick, which ended at `at`."""
    connection.execute(_KEEP, {"incarnation_id": incarnation_id, "at": at, **asdict(sample)})


def forget(connection: Connection) -> None:
    """Deletes up to 1,000 samples that are older than `KEPT_DAYS`."""
    connection.execute(_FORGET)
