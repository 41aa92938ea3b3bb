"""A claimed job, where only some of it matters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ponder.domain.state import Lane
from ponder.jobs.claim import ClaimedJob

SUBMITTED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def claimed_job(job_id: int, tenant_id: str = "t", *, lane: Lane = Lane.BATCH, **request: Any) -> ClaimedJob:
    return ClaimedJob(job_id, tenant_id, "b", request, [], lane, SUBMITTED_AT)
