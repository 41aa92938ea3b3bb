"""Renders templates. Everything a template shows is escaped, because prompts, answers and names may hold anything."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

import ponder
from ponder.console import figures
from ponder.console.session import Visitor

STATIC = files("ponder.console") / "static"
_FILTERS = (figures.money, figures.count, figures.size, figures.percent, figures.duration, figures.ago, figures.moment)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ponder.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in _FILTERS}
    environment.globals |= {"asset": asset, "version": ponder.__version__}
    return environment


@cache
def asset(name: str) -> str:
    """Returns the address of a static file. It holds a hash of the content, so that browsers may keep it for ever."""
    content = STATIC.joinpath(*name.split("/")).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def render(
    request: Request, template: str, visitor: Visitor | None = None, *, status: int = 200, **values: Any
) -> HTMLResponse:
    """Renders a page. `values` are what the template names beside `visitor`, `path` and the globals."""
    text = _environment().get_template(template).render(visitor=visitor, path=request.url.path, **values)
    return HTMLResponse(text, status_code=status)


def redirect(request: Request, path: str) -> Response:
    """Leads the browser to another page, after a form as after a request of htmx."""
    if "HX-Request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": path})
    return Response(status_code=303, headers={"Location": path})
