"""Answers errors in OpenAI's form: {"error": {message, type, param, code}}."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pg8000.exceptions import InterfaceError as DriverError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.domain.batch.refusal import path
from ponder.errors import (
    Conflict,
    Forbidden,
    Gone,
    InvalidInput,
    LimitReached,
    NotFound,
    PonderError,
    Unauthorized,
    Unreachable,
)

_STATUSES: tuple[tuple[type[PonderError], int, str], ...] = (
    (InvalidInput, 400, "invalid_request_error"),
    (Unauthorized, 401, "authentication_error"),
    (Forbidden, 403, "permission_error"),
    (NotFound, 404, "invalid_request_error"),
    (Conflict, 409, "invalid_request_error"),
    (Gone, 410, "invalid_request_error"),
    (Unreachable, 503, "server_error"),
)
_CODES = {
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    410: "results_expired",
    503: "unavailable",
}
_AWAY = ("08", "25P03", "40", "53", "55P03", "57")
"""SQLSTATEs or classes of them: connection lost, timed out, rolled back, out of resources, shut down."""

_log = structlog.get_logger(__name__)


class TooLarge(InvalidInput):
    """An upload or a body exceeds its limit."""


class ErrorAnswer(JSONResponse):
    """The answer to a request that failed. `message` is its text for people."""

    def __init__(self, status: int, message: str, kind: str, *, param: str | None, code: str | None) -> None:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status)
        error = {"message": message, "type": kind, "param": param, "code": code}
        super().__init__({"error": error}, status_code=status, headers=headers)
        self.message = message


def answer(status: int, message: str, kind: str, *, param: str | None = None, code: str | None = None) -> ErrorAnswer:
    return ErrorAnswer(status, message, kind, param=param, code=code)


def _as_json(_request: Request, found: ErrorAnswer) -> Response:
    return found


def install(app: FastAPI, present: Callable[[Request, ErrorAnswer], Response] = _as_json) -> None:
    """Makes the app translate everything that a route may raise. `present` makes what is sent of an answer."""

    def presented(handle: Callable[[Request, Exception], ErrorAnswer]) -> Callable[[Request, Exception], Response]:
        return lambda request, error: present(request, handle(request, error))

    app.add_exception_handler(PonderError, presented(_ours))
    app.add_exception_handler(RequestValidationError, presented(_invalid))
    app.add_exception_handler(HTTPException, presented(_http))
    app.add_exception_handler(DBAPIError, presented(_database))
    app.add_exception_handler(PoolTimeout, presented(_busy))
    for error in (DriverError, ConnectionError, TimeoutError):  # raised outside SQLAlchemy
        app.add_exception_handler(error, presented(_away))
    app.add_middleware(_Guarded, answer_of=presented(_unexpected))


class _Guarded:
    """ASGI middleware that stops untranslated errors, because the server would log all of their text."""

    def __init__(self, app: ASGIApp, answer_of: Callable[[Request, Exception], Response]) -> None:
        self._app = app
        self._answer_of = answer_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if scope["type"] != "http":
                raise
            refusal = self._answer_of(Request(scope), error)
            if has_begun:
                raise RuntimeError("an answer broke off") from None
            await refusal(scope, receive, send)


def _ours(request: Request, error: Exception) -> ErrorAnswer:
    if isinstance(error, LimitReached):
        refusal = answer(429, str(error), "rate_limit_error", code=error.code)
        refusal.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        if not error.is_passing:
            refusal.headers["x-should-retry"] = "false"  # OpenAI's clients obey this
        return refusal
    for kind, status, name in _STATUSES:
        if isinstance(error, kind):
            if isinstance(error, InvalidInput):
                status = 413 if isinstance(error, TooLarge) else status
                return answer(status, error.message, name, param=error.param, code=error.code)
            param = error.param if isinstance(error, NotFound) else None
            return answer(status, str(error), name, param=param, code=_CODES[status])
    return _unexpected(request, error)


def _invalid(_request: Request, error: Exception) -> ErrorAnswer:
    assert isinstance(error, RequestValidationError)
    first: Mapping[str, Any] = error.errors()[0]
    location = tuple(first["loc"])
    param = None if first["type"] == "json_invalid" else path(location[1:]) or None
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    if first["type"] == "extra_forbidden":
        return answer(400, f"{param} is not a known field", "invalid_request_error", param=param, code="unknown_field")
    message = str(first["msg"])
    return answer(400, f"{param}: {message}" if param else message, "invalid_request_error", param=param, code=code)


def _http(request: Request, error: Exception) -> ErrorAnswer:
    assert isinstance(error, HTTPException)
    message = (
        f"{request.method} {request.url.path} is not a route of ponder" if error.status_code == 404 else error.detail
    )
    return answer(
        error.status_code, message, "invalid_request_error", code=_CODES.get(error.status_code, "invalid_request")
    )


def _database(request: Request, error: Exception) -> ErrorAnswer:
    assert isinstance(error, DBAPIError)
    details = error.orig.args[0] if error.orig and error.orig.args else None
    state = str(details.get("C", "")) if isinstance(details, dict) else ""
    is_away = isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
    if is_away or state.startswith(_AWAY):
        return _away(request, error)
    return _unexpected(request, error)


def _away(_request: Request, _error: Exception) -> ErrorAnswer:
    return answer(503, "the database does not answer; try again", "server_error", code="unavailable")


def _busy(_request: Request, _error: Exception) -> ErrorAnswer:
    return answer(503, "all database connections are in use; try again", "server_error", code="unavailable")


def _unexpected(request: Request, error: Exception) -> ErrorAnswer:
    """Logs and answers an unexpected error. Neither quotes it, because it may quote a prompt."""
    tenant = getattr(request.state, "tenant_id", None)
    _log.error("unexpected_error", method=request.method, path=request.url.path, tenant=tenant, exc_info=error)
    return answer(500, "internal error; see the log of the API", "server_error", code="internal_error")
