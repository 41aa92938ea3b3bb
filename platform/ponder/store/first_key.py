"""Creates the first key, when there is no operator yet who could ask the API for one."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import Connection, text

_HINT_LENGTH = 8


def new_key() -> str:
    return f"pk-{secrets.token_urlsafe(32)}"


def ensure_operator_key(connection: Connection, key: str, *, tenant: str, name: str) -> None:
    """Makes `key` an operator's key of `tenant`, which is created if it does not exist.

    A revoked key becomes valid again: whoever can set it owns the database, and this is the way back in.
    """
    tenant_id = connection.execute(
        text(
            "INSERT INTO tenants (id, name) VALUES (:id, :name) "
            "ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id"
        ),
        {"id": f"tenant_{secrets.token_hex(8)}", "name": tenant},
    ).scalar_one()
    connection.execute(
        text(
            "INSERT INTO api_keys (id, tenant_id, name, sha256, hint, role) "
            "VALUES (:id, :tenant_id, :name, :sha256, :hint, 'operator') "
            "ON CONFLICT (sha256) DO UPDATE SET role = 'operator', revoked_at = NULL"
        ),
        {
            "id": f"key_{secrets.token_hex(8)}",
            "tenant_id": tenant_id,
            "name": name,
            "sha256": hashlib.sha256(key.encode()).digest(),
            "hint": key[:_HINT_LENGTH],
        },
    )
