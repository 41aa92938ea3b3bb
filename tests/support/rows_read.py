"""How many rows Postgres reads to answer queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event


def rows_read(engine: Engine, ask: Callable[[], object]) -> float:
    """Returns the rows that Postgres reads for all queries that `ask` makes of the engine, with fresh statistics.

    The queries are run twice.
    """
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        asked.append((statement, values))

    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        explained = [
            connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", values) for query, values in asked
        ]
        return sum(_of_node(one.scalar_one()[0]["Plan"]) for one in explained)


def _of_node(node: dict[str, Any]) -> float:
    own = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
    return float(own) + sum(_of_node(child) for child in node.get("Plans", ()))
