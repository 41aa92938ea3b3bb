"""Authenticates callers by their API key."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import text

from ponder.api.services import Ponder, Services, identifier
from ponder.domain.role import Role
from ponder.errors import Forbidden, Unauthorized

_bearer = HTTPBearer(auto_error=False, description="A ponder API key: pk-…")
_READING = ("GET", "HEAD")
_FIND = text("SELECT id, tenant_id, role, sha256, revoked_at FROM api_keys WHERE sha256 = :sha256")


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a key. Every query that a route makes for the caller names the tenant."""

    key_id: str
    tenant_id: str
    role: Role

    @property
    def is_operator(self) -> bool:
        return self.role is Role.OPERATOR


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _caller(
    request: Request, ponder: Ponder, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Caller:
    """Finds the caller. Missing, wrong, revoked and valid keys take the same work, so that timing reveals nothing.

    Refuses a key that may only read for all routes that change something.
    """
    sha256 = digest(credentials.credentials if credentials else "")
    known = ponder.limits.requests.tenant_of(sha256)
    if known is not None:
        _count(request, ponder, known)  # before asking Postgres
    with ponder.engine.connect() as connection:
        row = connection.execute(_FIND, {"sha256": sha256}).first()
    is_right = hmac.compare_digest(bytes(row.sha256) if row else bytes(32), sha256)
    if row is None or not is_right or row.revoked_at is not None:
        ponder.limits.requests.forget(sha256)
        raise Unauthorized("no valid API key: send Authorization: Bearer pk-… (`ponder key create` makes one)")
    request.state.tenant_id = row.tenant_id  # for the log
    role = Role(row.role)
    if known is None and role is not Role.OPERATOR:
        ponder.limits.requests.remember(sha256, row.tenant_id)
        _count(request, ponder, row.tenant_id)
    if role is Role.READ and request.method not in _READING:
        raise Forbidden("this key may only read: use one with the role submit")
    return Caller(row.id, row.tenant_id, role)


def _count(request: Request, ponder: Services, tenant_id: str) -> None:
    try:
        ponder.limits.requests.take(tenant_id)
    finally:
        request.state.rate = ponder.limits.requests.left(tenant_id)  # for the answer's headers


Tenant = Annotated[Caller, Depends(_caller)]


def _operator(caller: Tenant) -> Caller:
    if not caller.is_operator:
        raise Forbidden("this needs an operator's key")
    return caller


Operator = Annotated[Caller, Depends(_operator)]


def chosen_tenant(wanted: str | None, caller: Caller) -> str | None:
    """Returns the tenant that a parameter `tenant` names, by default the caller's, or None for `all`.

    Raises Forbidden for another tenant, unless the caller is an operator.
    """
    if wanted is None or wanted == caller.tenant_id:
        return caller.tenant_id
    if not caller.is_operator:
        raise Forbidden("only an operator's key can name another tenant")
    return None if wanted == "all" else identifier(wanted, "tenant", "tenant")
