"""The pages that begin and end a session, and the route that makes links which sign in once."""

from __future__ import annotations

import string
from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from ponder.api.auth import Tenant
from ponder.api.services import Ponder
from ponder.console import session
from ponder.console.rendering import redirect, render
from ponder.console.session import COOKIE, LINK_MINUTES, ConfirmedVisitor
from ponder.domain.storable import JsonObject
from ponder.errors import Forbidden, Unauthorized

router = APIRouter()
link_router = APIRouter(prefix="/v1/console", tags=["console"])

_Next = Annotated[str, Query(max_length=2_000)]


@link_router.post("/links")
def create_link(ponder: Ponder, caller: Tenant) -> JsonObject:
    """Makes a link that signs in once, with the rights of this key."""
    with ponder.engine.begin() as connection:
        token = session.make_link(connection, caller.key_id)
    return {"object": "console_link", "path": f"/sign-in/{token}", "expires_in_s": LINK_MINUTES * 60}


@router.get("/sign-in")
def sign_in_page(request: Request, next: _Next = "/") -> Response:
    return render(request, "sign_in.html", next=_own_path(next), problem=None)


@router.post("/sign-in")
def sign_in(
    request: Request,
    ponder: Ponder,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2_000)] = "/",
) -> Response:
    """Exchanges an API key for a session, which replaces the browser's former one."""
    session.refuse_other_sites(request)
    try:
        with ponder.engine.begin() as connection:
            token = session.begin(connection, key.strip(), ponder.limits.requests)
            session.end(connection, request.cookies.get(COOKIE, ""))
    except Unauthorized as error:
        return render(request, "sign_in.html", status=401, next=_own_path(next), problem=str(error))
    return _signed_in(request, token, next)


@router.get("/sign-in/{link_token}")
def sign_in_by_link(request: Request, link_token: str, ponder: Ponder, next: _Next = "/") -> Response:
    """Uses up a link. Someone whose link is used up but who is signed in just goes on.

    Another site must not sign somebody in, because what they then upload would go to its tenant.
    """
    try:
        session.refuse_other_sites(request)
    except Forbidden:
        problem = "Another site led you here. If you trust the link, copy it into the address bar."
        return render(request, "sign_in.html", status=403, next=_own_path(next), problem=problem)
    try:
        with ponder.engine.begin() as connection:
            token = session.begin_by_link(connection, link_token)
            session.end(connection, request.cookies.get(COOKIE, ""))
    except Unauthorized as error:
        if COOKIE in request.cookies:
            return redirect(request, _own_path(next))
        return render(request, "sign_in.html", status=401, next=_own_path(next), problem=str(error))
    return _signed_in(request, token, next)


@router.post("/sign-out")
def sign_out(request: Request, ponder: Ponder, _visitor: ConfirmedVisitor) -> Response:
    with ponder.engine.begin() as connection:
        session.end(connection, request.cookies[COOKIE])
    response = redirect(request, "/sign-in")
    response.delete_cookie(COOKIE)
    return response


@router.post("/tenant")
def choose_tenant(
    request: Request, ponder: Ponder, visitor: ConfirmedVisitor, tenant: Annotated[str, Form(max_length=100)]
) -> Response:
    """Chooses the tenant whose pages an operator sees."""
    with ponder.engine.begin() as connection:
        session.view_tenant(connection, request.cookies[COOKIE], visitor, tenant)
    return redirect(request, "/")


def _signed_in(request: Request, token: str, wanted: str) -> Response:
    response = redirect(request, _own_path(wanted))
    session.set_cookie(request, response, token)
    return response


def _own_path(wanted: str) -> str:
    """Returns a path of the console, so that no link leads somebody who signs in to another site."""
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return "/"
    is_own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not (parts.scheme or parts.netloc)
    return quote(wanted, safe=string.punctuation) if is_own and wanted.isprintable() else "/"
