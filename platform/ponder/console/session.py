"""Sessions of people who signed in with an API key, and the one-time links that sign them in.

A browser holds a random token in a cookie, and Postgres its hash with the key it stands for: a session ends with its
key. A page that changes something needs a second token in a header, which no other site can send.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, cast

from fastapi import Depends, Request
from pg8000.exceptions import InterfaceError as DriverError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from ponder.api.auth import Caller, digest
from ponder.api.services import Ponder, Services, identifier
from ponder.api.tenant_limits import RequestRate
from ponder.domain.role import Role
from ponder.errors import Forbidden, NotFound, PonderError, Unauthorized

COOKIE = "ponder_session"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"
"""The field of a form that stands for the header where scripts are off."""
_SESSION_DAYS = 14
LINK_MINUTES = 10
MOST_PER_KEY = 100
"""The most sessions of a key, and the most unused links. One more replaces the oldest, so that no key fills a table."""

_KEY = text("SELECT id, tenant_id, role FROM api_keys WHERE sha256 = :sha256 AND revoked_at IS NULL")
_BEGIN = text(
    f"""
    INSERT INTO console_sessions (sha256, key_id, expires_at)
    VALUES (:sha256, :key_id, clock_timestamp() + interval '{_SESSION_DAYS} days')
    """
)
_LOCK_KEY = text("SELECT 1 FROM api_keys WHERE id = :key_id FOR NO KEY UPDATE")
"""Whoever signs in with the same key at the same time waits, or both would leave room for one."""
_REPLACE = {
    table: text(
        f"""
        DELETE FROM {table} WHERE sha256 IN (
            SELECT sha256 FROM {table} WHERE key_id = :key_id AND expires_at > clock_timestamp()
            ORDER BY expires_at DESC OFFSET {MOST_PER_KEY - 1}
        )
        """
    )
    for table in ("console_sessions", "sign_in_links")
}
_END = text("DELETE FROM console_sessions WHERE sha256 = :sha256")
_FIND = text(
    """
    SELECT key.id AS key_id, key.hint, key.role, key.tenant_id, own.name AS tenant_name,
           viewed.id AS viewed_id, viewed.name AS viewed_name
    FROM console_sessions AS session
    JOIN api_keys AS key ON key.id = session.key_id AND key.revoked_at IS NULL
    JOIN tenants AS own ON own.id = key.tenant_id
    LEFT JOIN tenants AS viewed ON viewed.id = session.viewed_tenant_id AND key.role = 'operator'
    WHERE session.sha256 = :sha256 AND session.expires_at > clock_timestamp()
    """
)
_VIEW = text("UPDATE console_sessions SET viewed_tenant_id = :tenant_id WHERE sha256 = :sha256")
_TENANT = text("SELECT 1 FROM tenants WHERE id = :id")
_MAKE_LINK = text(
    f"""
    INSERT INTO sign_in_links (sha256, key_id, expires_at)
    VALUES (:sha256, :key_id, clock_timestamp() + interval '{LINK_MINUTES} minutes')
    """
)
_KEY_OF_LINK = text("SELECT key_id FROM sign_in_links WHERE sha256 = :sha256")
_USE_LINK = text(
    """
    DELETE FROM sign_in_links USING api_keys
    WHERE sign_in_links.sha256 = :sha256 AND expires_at > clock_timestamp()
      AND api_keys.id = key_id AND revoked_at IS NULL
    RETURNING key_id
    """
)


class SignedOut(PonderError):
    """The browser has no session, or its session or key has ended."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person who has signed in.

    `own` has the rights of the key. `viewed` is the caller for whom pages ask: the same, unless an operator has chosen
    another tenant, whose things can then be read but not changed.
    """

    own: Caller
    viewed: Caller
    hint: str
    own_tenant: str
    viewed_tenant: str
    csrf_token: str

    @property
    def may_change(self) -> bool:
        return self.viewed.role is not Role.READ


def begin(connection: Connection, key: str, requests: RequestRate) -> str:
    """Begins a session with an API key. Returns the cookie's token. Raises Unauthorized and LimitReached."""
    row = connection.execute(_KEY, {"sha256": digest(key)}).first()
    if row is None:
        raise Unauthorized("this is not a valid API key: `ponder key create` makes one")
    if Role(row.role) is not Role.OPERATOR:
        requests.take(row.tenant_id)
    return _begin(connection, row.id)


def make_link(connection: Connection, key_id: str) -> str:
    """Makes a link's token, which signs in once within `LINK_MINUTES`."""
    token = secrets.token_urlsafe(32)
    _make_room(connection, "sign_in_links", key_id)
    connection.execute(_MAKE_LINK, {"sha256": _hash(token), "key_id": key_id})
    return token


def begin_by_link(connection: Connection, link_token: str) -> str:
    """Uses up a link and begins a session. Returns the cookie's token. Raises Unauthorized."""
    values = {"sha256": _hash(link_token)}
    # The key is locked first, as by whoever makes a link, so that neither waits for the other.
    connection.execute(_LOCK_KEY, {"key_id": connection.execute(_KEY_OF_LINK, values).scalar()})
    key_id = connection.execute(_USE_LINK, values).scalar()
    if key_id is None:
        raise Unauthorized("this link has been used or is too old: `ponder open` makes a new one")
    return _begin(connection, str(key_id))


def end(connection: Connection, token: str) -> None:
    connection.execute(_END, {"sha256": _hash(token)})


def view_tenant(connection: Connection, token: str, visitor: Visitor, tenant_id: str) -> None:
    """Lets an operator look at another tenant's pages. Raises Forbidden and NotFound."""
    if not visitor.own.is_operator:
        raise Forbidden("only an operator can look at other tenants")
    values = {"id": identifier(tenant_id, "tenant")}
    if connection.execute(_TENANT, values).first() is None:
        raise NotFound(f"there is no tenant {tenant_id}", param="tenant")
    chosen = None if tenant_id == visitor.own.tenant_id else tenant_id
    connection.execute(_VIEW, {"sha256": _hash(token), "tenant_id": chosen})


def set_cookie(request: Request, response: Response, token: str) -> None:
    response.set_cookie(
        COOKIE,
        token,
        max_age=_SESSION_DAYS * 86_400,
        httponly=True,
        samesite="lax",
        secure=_is_encrypted(request),
    )


def _is_encrypted(request: Request) -> bool:
    """Whether the browser speaks TLS, which may end at a proxy. Somebody who lies loses only a cookie of their own."""
    forwarded = request.headers.get("X-Forwarded-Proto", "")
    origin = request.headers.get("Origin", "")
    return request.url.scheme == "https" or forwarded.startswith("https") or origin.startswith("https://")


def refuse_other_sites(request: Request) -> None:
    """Raises Forbidden for a request that another site caused, where no token can be checked first.

    The browser's own word counts. Only old browsers do not say it; then the origin must be the host, which a proxy that
    rewrites the host cannot give.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None:
        is_own = origin is None or origin.partition("://")[2] == request.headers.get("Host")
    else:
        is_own = site in ("same-origin", "none")
    if not is_own:
        raise Forbidden("send this from the console's own page")


def _begin(connection: Connection, key_id: str) -> str:
    token = secrets.token_urlsafe(32)
    _make_room(connection, "console_sessions", key_id)
    connection.execute(_BEGIN, {"sha256": _hash(token), "key_id": key_id})
    return token


def _make_room(connection: Connection, table: str, key_id: str) -> None:
    """Deletes the oldest of a key that has as many as it may. The dispatcher deletes what has expired."""
    connection.execute(_LOCK_KEY, {"key_id": key_id})
    connection.execute(_REPLACE[table], {"key_id": key_id})


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _csrf_token(token: str) -> str:
    """Derives the token of a session's pages from its cookie, which scripts cannot read."""
    return hmac.new(token.encode("utf-8", "replace"), b"csrf", hashlib.sha256).hexdigest()


def _visitor(request: Request, ponder: Ponder) -> Visitor:
    visitor = request.state.visitor = _find(request, ponder)
    if visitor is None:
        raise SignedOut("sign in to see this page")
    if not visitor.own.is_operator:
        ponder.limits.requests.take(visitor.own.tenant_id)
    return visitor


def known_visitor(request: Request) -> Visitor | None:
    """Returns who is signed in, for a page about an error, as far as that can be known. Raises nothing."""
    with suppress(SQLAlchemyError, DriverError, OSError):
        if not hasattr(request.state, "visitor"):
            request.state.visitor = _find(request, request.app.state.services)
        return cast("Visitor | None", request.state.visitor)
    return None


def _find(request: Request, ponder: Services) -> Visitor | None:
    if not (token := request.cookies.get(COOKIE, "")):
        return None
    with ponder.engine.connect() as connection:
        row = connection.execute(_FIND, {"sha256": _hash(token)}).first()
    if row is None:
        return None
    own = Caller(row.key_id, row.tenant_id, Role(row.role))
    is_own = row.viewed_id is None
    viewed = own if is_own else replace(own, tenant_id=row.viewed_id, role=Role.READ)
    viewed_tenant = row.tenant_name if is_own else row.viewed_name
    return Visitor(own, viewed, row.hint, row.tenant_name, viewed_tenant, _csrf_token(token))


SignedIn = Annotated[Visitor, Depends(_visitor)]


@dataclass(frozen=True, slots=True)
class Posted:
    """A form, and the visitor who sent it and may change what the tenant has."""

    visitor: Visitor
    fields: Mapping[str, str]


def _changing(request: Request, visitor: SignedIn) -> Visitor:
    """Refuses what another site could have sent."""
    check_token(visitor, request.headers.get(CSRF_HEADER))
    return visitor


def check_token(visitor: Visitor, *given: object) -> None:
    """Raises Forbidden unless a page of the console has sent one of these as its token."""
    tokens = [token.encode("utf-8", "replace") for token in given if isinstance(token, str)]
    if not any(hmac.compare_digest(token, visitor.csrf_token.encode()) for token in tokens):
        raise Forbidden("this page is out of date: load it again")


def _changing_own(visitor: Annotated[Visitor, Depends(_changing)]) -> Visitor:
    check_may_change(visitor)
    return visitor


async def _posted(request: Request, visitor: SignedIn) -> Posted:
    form = await request.form()
    check_token(visitor, request.headers.get(CSRF_HEADER), form.get(CSRF_FIELD))
    check_may_change(visitor)
    return Posted(visitor, {name: value for name, value in form.items() if isinstance(value, str)})


def check_may_change(visitor: Visitor) -> None:
    """Raises Forbidden for a key that may only read, and for an operator who looks at another tenant."""
    if not visitor.may_change:
        is_own = visitor.viewed.tenant_id == visitor.own.tenant_id
        raise Forbidden(
            "this key may only read: sign in with one that has the role submit"
            if is_own
            else "you are looking at another tenant, which can be read but not changed"
        )


ConfirmedVisitor = Annotated[Visitor, Depends(_changing)]
"""A visitor whose request certainly comes from a page of the console."""
Changing = Annotated[Visitor, Depends(_changing_own)]
"""The same, who may change what the tenant has."""
PostedForm = Annotated[Posted, Depends(_posted)]
"""A form that also works without scripts, because its token may be a field."""
