"""Limits the size of bodies other than uploads and the number of streams, and reports a tenant's remaining requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.api.error_answers import answer
from ponder.api.tenant_limits import Rate

MAX_BODY_BYTES = 16 * 1024
"""The limit on bodies parsed in the event loop, where a few thousand fields already take milliseconds."""
_MAX_SUBMISSION_BYTES = 1024 * 1024
_SUBMISSIONS = ("/v1/batches", "/v1/estimates")
_MAX_FORM_BYTES = 256 * 1024
_FORMS = ("/new", "/new/check")
_MAX_BENCH_RUN_BYTES = 8 * 1024 * 1024
_BENCH_RUNS = "/v1/bench/runs"
_UPLOADS = ("/v1/files", "/new/file")  # the second is the console's


def max_bytes(path: str) -> int:
    """Returns how many bytes the body of a request to this path may have."""
    if path in _SUBMISSIONS:
        return _MAX_SUBMISSION_BYTES
    if path in _FORMS:
        return _MAX_FORM_BYTES
    return _MAX_BENCH_RUN_BYTES if path == _BENCH_RUNS else MAX_BODY_BYTES


class Limited:
    """ASGI middleware that cuts off bodies before they fill the memory.

    It adds OpenAI's rate-limit headers, whose values `auth` leaves with the request, to every answer to a tenant.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            rate = scope.get("state", {}).get("rate")
            if message["type"] == "http.response.start" and isinstance(rate, Rate):
                told = [(name.encode(), value.encode()) for name, value in rate.headers().items()]
                message = {**message, "headers": [*message["headers"], *told]}
            await send(message)

        if scope["path"] in _UPLOADS:
            await self._app(scope, receive, telling)
            return
        most = max_bytes(scope["path"])
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            message = f"a body may have at most {most} bytes"
            await answer(413, message, "invalid_request_error", code="body_too_large")(scope, receive, send)
            return
        num_bytes = 0

        async def counting() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            return {"type": "http.disconnect"} if num_bytes > most else message

        await self._app(scope, counting, telling)


class LimitedStream(StreamingResponse):
    """A stream that takes up one of its tenant's slots for as long as it lasts."""

    def __init__(self, slot: AbstractContextManager[None], content: AsyncIterator[bytes], *, media_type: str) -> None:
        # The header asks nginx to pass what is sent on at once.
        super().__init__(content, media_type=media_type, headers={"X-Accel-Buffering": "no"})
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slot:
            await super().__call__(scope, receive, send)
