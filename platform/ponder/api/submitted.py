"""The body of a submission, as routes take it."""

from __future__ import annotations

from fastapi import Request
from starlette.requests import ClientDisconnect

from ponder.api.auth import Tenant
from ponder.api.error_answers import TooLarge
from ponder.api.limit import max_bytes
from ponder.domain.storable import JsonObject


def json_body(schema: JsonObject) -> JsonObject:
    """Returns what the specification says of a route that takes a raw body of this schema."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


SUBMISSION = json_body({"$ref": "#/components/schemas/Submission"})


async def raw_body(_caller: Tenant, request: Request) -> bytes:
    """Returns the raw body, because FastAPI would parse it in the event loop while nobody else is served."""
    try:
        return await request.body()
    except ClientDisconnect:  # `Limited` reports this for a body longer than announced
        most = max_bytes(request.url.path)
        raise TooLarge(f"a body may have at most {most} bytes", code="body_too_large") from None
