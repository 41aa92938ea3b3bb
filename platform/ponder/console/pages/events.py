"""The stream of server-sent events that tells an open page to ask for itself again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy import text
from starlette.responses import StreamingResponse

from ponder.api.limit import LimitedStream
from ponder.api.services import Ponder, Services, identifier, job_number
from ponder.console.change_feed import ChangeFeed, Topic, TopicKind
from ponder.console.session import SignedIn, Visitor
from ponder.errors import Forbidden, NotFound

router = APIRouter()

_STREAM_S = 300.0
_OWNED = {
    TopicKind.BATCH: text("SELECT 1 FROM batches WHERE id = :id AND tenant_id = :tenant_id"),
    TopicKind.JOB: text("SELECT 1 FROM jobs WHERE id = :id AND tenant_id = :tenant_id"),
}


@router.get("/events", response_class=StreamingResponse)
def events(
    request: Request,
    ponder: Ponder,
    visitor: SignedIn,
    *,
    of: TopicKind,
    id: Annotated[str, Query(max_length=100, description="of the batch or job")] = "",
) -> StreamingResponse:
    """Tells when a page should ask for itself again. The stream carries no content."""
    feed: ChangeFeed = request.app.state.change_feed
    topic = _topic(ponder, visitor, of, id)
    slot = ponder.limits.pages.one(visitor.own.tenant_id, is_operator=visitor.own.is_operator)
    return LimitedStream(slot, feed.stream(topic, lasts_s=_STREAM_S), media_type="text/event-stream")


def _topic(ponder: Services, visitor: Visitor, kind: TopicKind, wanted: str) -> Topic:
    """Raises NotFound for another tenant's things, and Forbidden for what only an operator sees."""
    tenant_id = visitor.viewed.tenant_id
    if kind is TopicKind.TENANT:
        return Topic(kind, tenant_id)
    if kind is TopicKind.FLEET:
        if not visitor.own.is_operator:
            raise Forbidden("only an operator sees the fleet")
        return Topic(kind)
    found = job_number(wanted, "id") if kind is TopicKind.JOB else identifier(wanted, "batch", "id")
    with ponder.engine.connect() as connection:
        if connection.execute(_OWNED[kind], {"id": found, "tenant_id": tenant_id}).first() is None:
            raise NotFound(f"there is no such {kind}", param="id")
    return Topic(kind, str(found))
