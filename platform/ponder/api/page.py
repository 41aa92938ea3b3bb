"""Pages of lists in OpenAI's form, with `limit` and `after`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import Connection, TextClause

from ponder.domain.storable import JsonObject
from ponder.errors import NotFound

Limit = Annotated[int, Query(ge=1, le=100, description="the most objects in the page")]
LongLimit = Annotated[int, Query(ge=1, le=10_000, description="the most objects in the page")]
After = Annotated[str | None, Query(max_length=100, description="the id after which the page begins")]


def check_cursor(connection: Connection, find: TextClause, values: Mapping[str, Any]) -> None:
    """Raises NotFound if the page begins after something that `find` does not find for the caller."""
    if values["after"] is not None and connection.execute(find, values).first() is None:
        raise NotFound("this list has no object with the id in `after`", param="after")


def page(objects: Sequence[JsonObject], limit: int) -> JsonObject:
    """Makes a page of up to limit + 1 objects. The last of those only shows that there are more."""
    shown = list(objects[:limit])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(objects) > limit,
    }
