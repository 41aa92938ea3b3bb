"""The route of /v1/estimates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from ponder.api.auth import Tenant
from ponder.api.services import Ponder
from ponder.api.submitted import SUBMISSION, raw_body
from ponder.domain.storable import JsonObject
from ponder.jobs.estimating.appraise import appraise

router = APIRouter(prefix="/v1/estimates", tags=["batches"])


@router.post("", openapi_extra=SUBMISSION)
def create(
    body: Annotated[bytes, Depends(raw_body)],
    ponder: Ponder,
    caller: Tenant,
    workers: Annotated[int | None, Query(ge=1, le=100_000)] = None,
) -> JsonObject:
    """Estimates what a submission would take: tokens, dollars and time, also with `workers`. Submits nothing."""
    with ponder.limits.submissions.one(caller.tenant_id, is_operator=caller.is_operator):
        submission = ponder.reader.read(body)
        return appraise(ponder.engine, caller.tenant_id, submission, ponder.settings, num_workers=workers)
