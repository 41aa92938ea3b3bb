"""The routes of /v1/tenants, for operators. Other callers read their own."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import Row, text

from ponder.api.auth import Operator, Tenant
from ponder.api.page import After, Limit, check_cursor, page
from ponder.api.services import Ponder, identifier, unix
from ponder.domain.batch.submission import OutputExpiry, StorableBody
from ponder.domain.storable import JsonObject
from ponder.errors import Conflict, NotFound
from ponder.jobs.wake import wake

router = APIRouter(prefix="/v1/tenants", tags=["administration"])

_INSERT = text(
    """
    INSERT INTO tenants (id, name, quota_tokens) VALUES (:id, :name, :quota_tokens)
    ON CONFLICT (name) DO NOTHING RETURNING *
    """
)
_SET_QUOTA = text("UPDATE tenants SET quota_tokens = :quota_tokens WHERE id = :id RETURNING *")
_SET_RETENTION = text("UPDATE tenants SET output_expires_after_s = :seconds WHERE id = :id RETURNING *")
_LIST = text(
    """
    SELECT * FROM tenants
    WHERE CAST(:after AS text) IS NULL OR (created_at, id) > (SELECT created_at, id FROM tenants WHERE id = :after)
    ORDER BY created_at, id LIMIT :limit
    """
)
_FIND = text("SELECT * FROM tenants WHERE id = :id AND (:sees_all OR id = :tenant_id)")
_CURSOR = text("SELECT 1 FROM tenants WHERE id = :after")


class Quota(StorableBody):
    quota_tokens: int | None = Field(default=None, ge=1, le=2**62)
    """Estimated tokens in flight at a time. None means no limit."""


class Retention(StorableBody):
    output_expires_after: OutputExpiry | None
    """For batches submitted from now on that do not say it themselves. None means that results are kept for ever."""


class NewTenant(Quota):
    name: str = Field(min_length=1, max_length=200)


@router.get("")
def list_tenants(ponder: Ponder, _caller: Operator, limit: Limit = 100, after: After = None) -> JsonObject:
    values = {"after": None if after is None else identifier(after, "tenant", "after"), "limit": limit + 1}
    with ponder.engine.connect() as connection:
        check_cursor(connection, _CURSOR, values)
        return page([_object(row) for row in connection.execute(_LIST, values)], limit)


@router.get("/{tenant_id}")
def get_tenant(tenant_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Returns the caller's own tenant, or for an operator any."""
    values = {"id": identifier(tenant_id, "tenant"), "sees_all": caller.is_operator, "tenant_id": caller.tenant_id}
    with ponder.engine.connect() as connection:
        row = connection.execute(_FIND, values).first()
    if row is None:
        raise NotFound(f"there is no tenant {tenant_id}", param="tenant_id")
    return _object(row)


@router.post("")
def create_tenant(body: NewTenant, ponder: Ponder, _caller: Operator) -> JsonObject:
    with ponder.engine.begin() as connection:
        row = connection.execute(_INSERT, {"id": f"tenant_{secrets.token_hex(8)}", **body.model_dump()}).first()
    if row is None:
        raise Conflict(f"there is already a tenant {body.name}")
    return _object(row)


@router.put("/{tenant_id}")
def set_quota(tenant_id: str, body: Quota, ponder: Ponder, _caller: Operator) -> JsonObject:
    values = {"id": identifier(tenant_id, "tenant"), "quota_tokens": body.quota_tokens}
    with ponder.engine.begin() as connection:
        row = connection.execute(_SET_QUOTA, values).first()
        if row is not None:
            wake(connection)
    if row is None:
        raise NotFound(f"there is no tenant {tenant_id}", param="tenant_id")
    return _object(row)


@router.put("/{tenant_id}/retention")
def set_retention(tenant_id: str, body: Retention, ponder: Ponder, _caller: Operator) -> JsonObject:
    seconds = body.output_expires_after and body.output_expires_after.seconds
    with ponder.engine.begin() as connection:
        row = connection.execute(_SET_RETENTION, {"id": identifier(tenant_id, "tenant"), "seconds": seconds}).first()
    if row is None:
        raise NotFound(f"there is no tenant {tenant_id}", param="tenant_id")
    return _object(row)


def _object(row: Row[Any]) -> JsonObject:
    seconds = row.output_expires_after_s
    return {
        "id": row.id,
        "object": "tenant",
        "name": row.name,
        "quota_tokens": row.quota_tokens,
        "output_expires_after": None if seconds is None else {"anchor": "created_at", "seconds": seconds},
        "created_at": unix(row.created_at),
    }
