"""/v1/tenants: for operators."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import Row, text

from ponder.api.auth import Operator
from ponder.api.page import After, Limit, page
from ponder.api.services import Ponder, identifier, unix
from ponder.domain.submission import StorableBody
from ponder.errors import Conflict

router = APIRouter(prefix="/v1/tenants", tags=["administration"])

_INSERT = text(
    "INSERT INTO tenants (id, name) VALUES (:id, :name) ON CONFLICT (name) DO NOTHING RETURNING id, name, created_at"
)
_LIST = text(
    """
    SELECT id, name, created_at FROM tenants
    WHERE CAST(:after AS text) IS NULL OR (created_at, id) > (SELECT created_at, id FROM tenants WHERE id = :after)
    ORDER BY created_at, id LIMIT :limit
    """
)


class NewTenant(StorableBody):
    name: str = Field(min_length=1, max_length=200)


@router.get("")
def list_tenants(ponder: Ponder, _caller: Operator, limit: Limit = 100, after: After = None) -> dict[str, Any]:
    values = {"after": None if after is None else identifier(after, "tenant"), "limit": limit + 1}
    with ponder.engine.connect() as connection:
        return page([_object(row) for row in connection.execute(_LIST, values)], limit)


@router.post("")
def create_tenant(body: NewTenant, ponder: Ponder, _caller: Operator) -> dict[str, Any]:
    with ponder.engine.begin() as connection:
        row = connection.execute(_INSERT, {"id": f"tenant_{secrets.token_hex(8)}", "name": body.name}).first()
    if row is None:
        raise Conflict(f"there is a tenant {body.name} already")
    return _object(row)


def _object(row: Row[Any]) -> dict[str, Any]:
    return {"id": row.id, "object": "tenant", "name": row.name, "created_at": unix(row.created_at)}
