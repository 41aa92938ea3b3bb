"""Who is calling."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import text

from ponder.api.services import Ponder
from ponder.domain.role import Role
from ponder.errors import Forbidden, Unauthorized

_bearer = HTTPBearer(auto_error=False, description="A key of ponder: pk-…")
_READING = ("GET", "HEAD")
_FIND = text("SELECT id, tenant_id, role, sha256, revoked_at FROM api_keys WHERE sha256 = :sha256")


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant is in every query that a route makes for the caller."""

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
    """The same work for a missing, a wrong, a revoked and a right key, so that its time tells nothing.

    A key that may only read is refused here, for all routes that change something.
    """
    sha256 = digest(credentials.credentials if credentials else "")
    with ponder.engine.connect() as connection:
        row = connection.execute(_FIND, {"sha256": sha256}).first()
    is_right = hmac.compare_digest(bytes(row.sha256) if row else bytes(32), sha256)
    if row is None or not is_right or row.revoked_at is not None:
        raise Unauthorized("no valid API key: send Authorization: Bearer pk-… (`ponder key create` makes one)")
    request.state.tenant_id = row.tenant_id  # for the log
    role = Role(row.role)
    if role is Role.READ and request.method not in _READING:
        raise Forbidden("this key may only read: use one with the role submit")
    return Caller(row.id, row.tenant_id, role)


Tenant = Annotated[Caller, Depends(_caller)]


def _operator(caller: Tenant) -> Caller:
    if not caller.is_operator:
        raise Forbidden("this needs an operator's key")
    return caller


Operator = Annotated[Caller, Depends(_operator)]
