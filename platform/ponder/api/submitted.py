"""The body of a submission, as routes take it."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from ponder.api.auth import Tenant
from ponder.api.error_answers import TooLarge
from ponder.api.limit import max_bytes

SUBMISSION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Submission"}}},
    }
}


async def raw_body(_caller: Tenant, request: Request) -> bytes:
    """Returns the raw body, because FastAPI would parse it in the event loop while nobody else is served."""
    try:
        return await request.body()
    except ClientDisconnect:  # `Limited` reports this for a body longer than announced
        most = max_bytes(request.url.path)
        raise TooLarge(f"a body may have at most {most} bytes", code="body_too_large") from None
