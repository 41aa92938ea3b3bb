"""The route of a batch's results as they come, one line per refused line and per settled job."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from ponder.api.auth import Tenant
from ponder.api.limit import LimitedStream
from ponder.api.outcome import encoded, refused_lines, settled_lines
from ponder.api.services import Ponder, identifier
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput
from ponder.jobs.retention.check_kept import check_kept
from ponder.jobs.tally import numbered, settled_after

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_CURSOR = re.compile(r"(?P<batch>batch_[0-9a-f]{1,64})-(?P<kind>[ln])(?P<count>[0-9]{12})", re.ASCII)
_LIMIT = 1_000
_PIECE = 250
"""Lines that are read and sent at a time, so that memory stays small."""
_PAUSES_S = (0.25, 0.5, 1.0, 2.0)
"""Pauses before looking again, longer and longer while nothing settles."""
_HEARTBEAT_S = 10.0
"""Shorter than the patience of usual proxies."""


@dataclass(frozen=True, slots=True)
class _Position:
    """A place in the results of a batch. Its refused lines come first, then its jobs in the order of their numbers."""

    tenant_id: str
    batch_id: str
    line: int = 0
    """The last refused line before this place."""
    number: int | None = None
    """The last job before this place; None among the refused lines."""

    @property
    def cursor(self) -> str:
        """The place as text. The cursors of a batch sort as text in the order of the lines."""
        count = f"l{self.line:012}" if self.number is None else f"n{self.number:012}"
        return f"{self.batch_id}-{count}"

    def after_line(self, line: int) -> _Position:
        return _Position(self.tenant_id, self.batch_id, line)

    def after_job(self, number: int) -> _Position:
        return _Position(self.tenant_id, self.batch_id, self.line, number)


@dataclass(frozen=True, slots=True)
class _Page:
    """The lines after a place: refused ones by line, and jobs by number. `is_last`: none will ever follow."""

    begin: _Position
    refused: Mapping[int, JsonObject]
    jobs: Mapping[int, int]
    end: _Position
    is_last: bool

    @property
    def is_empty(self) -> bool:
        return not self.refused and not self.jobs


@router.get("/{batch_id}/results", response_class=StreamingResponse)
def get_results(
    batch_id: str,
    ponder: Ponder,
    caller: Tenant,
    *,
    after: Annotated[str | None, Query(max_length=100, description="the cursor of the last line that you have")] = None,
    follow: Annotated[bool, Query(description="go on until the batch has ended")] = False,
    limit: Annotated[int | None, Query(ge=1, le=_LIMIT, description="the most lines, without `follow`")] = None,
) -> StreamingResponse:
    """Returns refused lines and settled jobs in the order in which they settled, as JSON lines with a `cursor` each."""
    if follow and limit is not None:
        raise InvalidInput("limit is for pages: with follow=true all lines come", param="limit", code="invalid_value")
    begin = _position(ponder.engine, caller.tenant_id, identifier(batch_id, "batch"), after)
    if follow:
        slot = ponder.limits.streams.one(caller.tenant_id, is_operator=caller.is_operator)
        return LimitedStream(slot, _follow(ponder.engine, begin), media_type="application/jsonl")
    page = _look(ponder.engine, begin, limit or _LIMIT)
    headers = {"Ponder-Cursor": page.end.cursor, "Ponder-Complete": str(page.is_last).lower()}
    return StreamingResponse(_pieces(ponder.engine, page), media_type="application/jsonl", headers=headers)


async def _follow(engine: Engine, position: _Position) -> AsyncIterator[bytes]:
    """Yields lines until the batch has ended, and now and then a blank one. Holds no connection between two reads."""
    num_pauses = 0
    quiet_s = 0.0
    while True:
        page = await run_in_threadpool(_look, engine, position, _PIECE)
        if not page.is_empty:
            yield await run_in_threadpool(b"".join, _pieces(engine, page))
            num_pauses, quiet_s = 0, 0.0
        position = page.end
        if page.is_last:
            return
        if page.is_empty:
            pause_s = _PAUSES_S[min(num_pauses, len(_PAUSES_S) - 1)]
            await asyncio.sleep(pause_s)
            num_pauses, quiet_s = num_pauses + 1, quiet_s + pause_s
        if quiet_s >= _HEARTBEAT_S:
            yield b"\n"
            quiet_s = 0.0


def _position(engine: Engine, tenant_id: str, batch_id: str, after: str | None) -> _Position:
    """Returns the place that a cursor names. Raises InvalidInput, and NotFound or Gone for the batch."""
    with engine.connect() as connection:
        known = numbered(connection, tenant_id, batch_id)
        check_kept(connection, tenant_id, batch_id)
    begin = _Position(tenant_id, batch_id)
    if after is None:
        return begin
    match = _CURSOR.fullmatch(after)
    if match is None:
        raise _refusal("is not a cursor: give that of the last line that you have")
    if match["batch"] != batch_id:
        raise _refusal("is the cursor of another batch")
    count = int(match["count"])
    if match["kind"] == "l":
        return begin.after_line(count)
    if count > known.num_settled:
        raise _refusal("is a cursor beyond the last settled job")
    return begin.after_job(count)


def _refusal(what: str) -> InvalidInput:
    return InvalidInput(f"after {what}", param="after", code="invalid_cursor")


def _look(engine: Engine, begin: _Position, limit: int) -> _Page:
    """Returns which lines come next, without the content of those of jobs."""
    refused: Mapping[int, JsonObject] = {}
    jobs: Mapping[int, int] = {}
    end = begin
    with engine.connect() as connection:
        # Asked first: whatever is committed later is left for the next page.
        known = numbered(connection, begin.tenant_id, begin.batch_id)
        if known.is_begun and end.number is None:
            refused = refused_lines(connection, begin.tenant_id, begin.batch_id, begin.line, limit)
            check_kept(connection, begin.tenant_id, begin.batch_id)
            end = end.after_line(max(refused, default=end.line))
            if len(refused) < limit:
                end = end.after_job(0)
        if end.number is not None and end.number < known.num_settled and len(refused) < limit:
            jobs = settled_after(connection, begin.tenant_id, begin.batch_id, end.number, limit - len(refused))
            end = end.after_job(max(jobs, default=end.number))
    is_last = known.is_final and end.number is not None and end.number >= known.num_settled
    return _Page(begin, refused, jobs, end, is_last)


def _pieces(engine: Engine, page: _Page) -> Iterator[bytes]:
    """Yields the lines of a page, each piece in its own transaction, so that a slow reader holds no connection."""
    if page.refused:
        yield encoded(_with(page.begin.after_line(number), line) for number, line in page.refused.items())
    numbers = list(page.jobs)
    for start in range(0, len(numbers), _PIECE):
        piece = numbers[start : start + _PIECE]
        with engine.connect() as connection:
            lines = settled_lines(connection, page.begin.tenant_id, [page.jobs[number] for number in piece])
            check_kept(connection, page.begin.tenant_id, page.begin.batch_id)
        places = map(page.begin.after_job, piece)
        yield encoded(_with(place, line) for place, line in zip(places, lines, strict=True))


def _with(place: _Position, line: JsonObject) -> dict[str, Any]:
    return line | {"cursor": place.cursor}
