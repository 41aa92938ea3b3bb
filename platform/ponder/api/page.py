"""Lists, a page at a time: `limit` and `after`, answered in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import Connection, TextClause

from ponder.errors import NotFound

Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]
LongLimit = Annotated[int, Query(ge=1, le=10_000, description="how many at most")]
After = Annotated[str | None, Query(max_length=100, description="the id after which the page begins")]


def check_cursor(connection: Connection, find: TextClause, values: Mapping[str, Any]) -> None:
    """Raises NotFound unless the page begins at the beginning, or after something that `find` finds for the caller."""
    if values["after"] is not None and connection.execute(find, values).first() is None:
        raise NotFound("there is nothing with the id in `after` in this list", param="after")


def page(objects: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Of up to limit + 1 objects, of which the last only says that there are more."""
    shown = list(objects[:limit])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(objects) > limit,
    }
