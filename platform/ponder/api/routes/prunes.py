"""The route of /v1/prunes, which deletes what ended batches leave behind."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from ponder.api.auth import Tenant, chosen_tenant
from ponder.api.services import Ponder
from ponder.domain.batch.submission import StorableBody
from ponder.domain.storable import JsonObject
from ponder.jobs.retention.discard import discard_all, discardable

router = APIRouter(prefix="/v1/prunes", tags=["batches"])


class Prune(StorableBody):
    """The body of a request. `tenant`: for operators, another tenant's id or `all`."""

    dry_run: bool = False
    older_than_s: Annotated[float | None, Field(ge=0, le=1e10, allow_inf_nan=False)] = None
    """Also batches that ended longer ago than this, whatever they said about it."""
    tenant: Annotated[str | None, Field(max_length=100)] = None


@router.post("")
def prune(body: Prune, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Discards the prompts, results, search trees and files of ended batches, and says how much that is.

    From the answer on nobody sees them; the dispatcher deletes their rows.
    """
    tenant_id = chosen_tenant(body.tenant, caller)
    if body.dry_run:
        with ponder.engine.connect() as connection:
            found = discardable(connection, tenant_id, body.older_than_s)
    else:
        found = discard_all(ponder.engine, tenant_id, body.older_than_s)
    return {"object": "prune", "dry_run": body.dry_run, **asdict(found)}
