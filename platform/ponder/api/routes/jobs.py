"""The routes of /v1/jobs."""

from __future__ import annotations

from fastapi import APIRouter

from ponder.api.auth import Tenant
from ponder.api.job_object import job_object
from ponder.api.services import Ponder
from ponder.domain.storable import JsonObject

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id}")
def get_job(job_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Returns a job with its attempts, usage, cost and search tree, and for a waiting one the reason."""
    with ponder.engine.connect() as connection:
        return job_object(connection, caller.tenant_id, job_id)
