"""Adds the console to the API's app: an app of its own below the same address, with its own headers and errors."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.api import error_answers
from ponder.api.error_answers import ErrorAnswer
from ponder.api.services import Services
from ponder.console.change_feed import ChangeFeed
from ponder.console.pages import (
    batch_list,
    batch_page,
    events,
    fleet_page,
    job_page,
    job_tree,
    new_batch,
    settings_page,
    sign_in,
)
from ponder.console.pages.reports import (
    alternatives,
    bench_comparison,
    bench_page,
    cost_page,
    quality_page,
    spending_parts,
)
from ponder.console.rendering import STATIC, asset, redirect, render
from ponder.console.session import SignedOut, known_visitor

PAGES = (
    *(sign_in, events, batch_list, batch_page, job_tree, job_page, new_batch, fleet_page, settings_page),
    *(cost_page, spending_parts, alternatives, bench_page, bench_comparison, quality_page),
)
_CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # without a referrer, the console's own forms would have no origin either
    "Cache-Control": "no-store",
}
_TITLES = {
    400: "Invalid input",
    401: "Signed out",
    403: "Not allowed",
    404: "There is no such page",
    409: "Not possible now",
    410: "No longer kept",
    413: "Too large",
    429: "Too many requests",
    503: "Not available now",
}


def install(app: FastAPI) -> None:
    """Adds the console to the app of the API. Paths below /v1 stay the API's."""
    services = app.state.services
    assert isinstance(services, Services)
    console = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    console.state.services = services
    console.state.change_feed = ChangeFeed(services.engine)
    error_answers.install(console, _error_page)
    console.add_exception_handler(SignedOut, _to_sign_in)
    console.add_middleware(_Hardened)
    for module in PAGES:
        console.include_router(module.router)
    console.mount("/static", _Static(directory=str(STATIC)))
    app.include_router(sign_in.link_router)
    app.router.routes.append(_BelowApi("/", console))


def _error_page(request: Request, found: ErrorAnswer) -> Response:
    """Shows an error as a page, or in the notice of the page whose part was asked for. Programs get the API's form."""
    is_part = "HX-Request" in request.headers
    if not is_part and "text/html" not in request.headers.get("Accept", ""):
        return found
    status = found.status_code
    title = _TITLES.get(status, "Something went wrong")
    template = "parts/notice.html" if is_part else "error.html"
    is_word = found.message.partition(" ")[0].isalpha()  # and not the name of a field
    message = found.message[:1].upper() + found.message[1:] if is_word else found.message
    page = render(request, template, known_visitor(request), status=status, title=title, message=message, is_bad=True)
    if is_part:
        page.headers["HX-Retarget"], page.headers["HX-Reswap"] = "#notice", "innerHTML"
    return page


async def _to_sign_in(request: Request, _error: Exception) -> Response:
    if request.method != "GET" or request.url.path == "/events":
        return Response("signed out", status_code=401, headers={"HX-Redirect": "/sign-in"})
    wanted = quote(request.scope["path"]) + (f"?{request.url.query}" if request.url.query else "")
    return redirect(request, f"/sign-in?next={quote(wanted, safe='')}")


class _BelowApi(Mount):
    """The console's place among the API's routes: after all of them, and never for an address of the API."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and not scope["path"].startswith("/v1"):
            return super().matches(scope)
        return Match.NONE, {}


class _Static(StaticFiles):
    """Static files, which are kept for ever under the address that names their content."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200 and asset(path).endswith(f"?{scope['query_string'].decode('latin-1')}"):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


class _Hardened:
    """ASGI middleware that allows scripts and styles only from files of the console. A route's own headers stay."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, adding)
