"""The routes of /v1/keys. A key is shown once, when it is made; only its SHA-256 is kept."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import Connection, Row, text

from ponder.api.auth import Caller, Tenant, digest
from ponder.api.page import After, Limit, check_cursor, page
from ponder.api.services import Ponder, identifier, unix
from ponder.domain.batch.submission import StorableBody
from ponder.domain.role import Role
from ponder.domain.storable import JsonObject
from ponder.errors import Forbidden, NotFound
from ponder.store.first_key import new_key

router = APIRouter(prefix="/v1/keys", tags=["administration"])

_COLUMNS = "id, tenant_id, name, hint, role, created_at, revoked_at"
_HINT_LENGTH = 8
_INSERT = text(
    f"""
    INSERT INTO api_keys (id, tenant_id, name, sha256, hint, role)
    VALUES (:id, :tenant_id, :name, :sha256, :hint, :role) RETURNING {_COLUMNS}
    """
)
_LIST = text(
    f"""
    SELECT {_COLUMNS} FROM api_keys
    WHERE (:sees_all OR tenant_id = :tenant_id)
      AND (CAST(:after AS text) IS NULL OR (created_at, id) > (SELECT created_at, id FROM api_keys WHERE id = :after))
    ORDER BY created_at, id LIMIT :limit
    """
)
_CURSOR = text("SELECT 1 FROM api_keys WHERE id = :after AND (:sees_all OR tenant_id = :tenant_id)")
_ROLE = text("SELECT role FROM api_keys WHERE id = :id AND (:sees_all OR tenant_id = :tenant_id)")
_REVOKE = text("UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :id")


class NewKey(StorableBody):
    """A key to make. `tenant` is an id or a name, by default the caller's. Only operators make operators' keys."""

    name: str = Field(min_length=1, max_length=200)
    tenant: str | None = Field(default=None, min_length=1, max_length=200)
    role: Role = Field(default=Role.SUBMIT, strict=False)


@router.get("")
def list_keys(ponder: Ponder, caller: Tenant, limit: Limit = 100, after: After = None) -> JsonObject:
    """Lists the tenant's keys, or for an operator all keys."""
    cursor = None if after is None else identifier(after, "key", "after")
    values = {"after": cursor, "limit": limit + 1, **_scope(caller)}
    with ponder.engine.connect() as connection:
        check_cursor(connection, _CURSOR, values)
        return page([_object(row) for row in connection.execute(_LIST, values)], limit)


@router.post("")
def create_key(body: NewKey, ponder: Ponder, caller: Tenant) -> JsonObject:
    key = new_key()
    with ponder.engine.begin() as connection:
        tenant_id = _tenant_of(connection, body, caller)
        row = connection.execute(
            _INSERT,
            {
                "id": f"key_{secrets.token_hex(8)}",
                "tenant_id": tenant_id,
                "name": body.name,
                "sha256": digest(key),
                "hint": key[:_HINT_LENGTH],
                "role": body.role,
            },
        ).one()
    return _object(row) | {"key": key}


@router.delete("/{key_id}")
def revoke_key(key_id: str, ponder: Ponder, caller: Tenant) -> JsonObject:
    """Revokes a key. Revoking it again does nothing. Only operators revoke operators' keys."""
    values = {"id": identifier(key_id, "key")}
    with ponder.engine.begin() as connection:
        role = connection.execute(_ROLE, values | _scope(caller)).scalar()
        if role is None:
            raise NotFound(f"there is no key {key_id}", param="key_id")
        if role == Role.OPERATOR and not caller.is_operator:
            raise Forbidden("only an operator's key can revoke an operator's key")
        connection.execute(_REVOKE, values)
    return {"id": key_id, "object": "api_key", "deleted": True}


def _scope(caller: Caller) -> dict[str, object]:
    return {"sees_all": caller.is_operator, "tenant_id": caller.tenant_id}


def _tenant_of(connection: Connection, body: NewKey, caller: Caller) -> str:
    """Returns the tenant of a new key. Raises Forbidden for a key that only an operator may make."""
    if body.role is Role.OPERATOR and not caller.is_operator:
        raise Forbidden("only an operator's key can make an operator's key")
    if body.tenant is None or body.tenant == caller.tenant_id:
        return caller.tenant_id
    if not caller.is_operator:
        raise Forbidden("only an operator's key can make keys of another tenant")
    found = connection.execute(
        text("SELECT id FROM tenants WHERE id = :tenant OR name = :tenant ORDER BY id = :tenant DESC LIMIT 1"),
        {"tenant": body.tenant},
    ).scalar()
    if found is None:
        raise NotFound(f"there is no tenant {body.tenant}", param="tenant")
    return str(found)


def _object(row: Row[Any]) -> JsonObject:
    return {
        "id": row.id,
        "object": "api_key",
        "name": row.name,
        "tenant": row.tenant_id,
        "hint": row.hint,
        "role": row.role,
        "created_at": unix(row.created_at),
        "revoked_at": unix(row.revoked_at),
    }
