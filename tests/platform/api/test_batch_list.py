"""Neither the size of a list of batches grows with their errors, nor the number of queries with their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
from sqlalchemy import Engine, event, text

from ponder.api.batch_object import batch_objects
from ponder.jobs.validation.validate import validate


def test_a_list_has_no_errors_and_no_long_options_and_a_batch_has_them(
    http: httpx2.Client, submitted: Callable[..., Any], line: Callable[..., Any], worker: Any
) -> None:
    refused = [line(str(number), **{"x" * 5_000: 1}) for number in range(50)]
    short = submitted(refused, priority="batch")
    long = submitted(refused, reference="a" * 100_000)
    worker.validate()

    answer = http.get("/v1/batches")
    assert len(answer.content) < 5_000
    listed = {batch["id"]: batch for batch in answer.json()["data"]}
    assert [batch["errors"] for batch in listed.values()] == [{"object": "list"}] * 2
    assert [batch["request_counts"]["failed"] for batch in listed.values()] == [50, 50]
    assert listed[short.id]["ponder"]["options"] == {"priority": "batch"}
    assert listed[long.id]["ponder"]["options"] is None

    one = http.get(f"/v1/batches/{long.id}").json()
    assert one["ponder"]["options"] == {"reference": "a" * 100_000}
    assert len(one["errors"]["data"]) == 50
    assert {len(error["message"]) for error in one["errors"]["data"]} == {200}
    assert {len(error["param"]) for error in one["errors"]["data"]} == {200}


def test_a_batch_without_errors_is_listed_without(http: httpx2.Client, submitted: Any, line: Any, worker: Any) -> None:
    submitted([line()])
    worker.validate()
    assert http.get("/v1/batches").json()["data"][0]["errors"] is None


def test_a_list_says_what_stops_whole_batches(http: httpx2.Client, submitted: Any, line: Any, worker: Any) -> None:
    unread, paused, queued = (submitted([line()]).id for _ in range(3))
    for batch in (paused, queued):
        validate(worker.engine, batch)
    http.patch(f"/v1/batches/{paused}", json={"ponder": {"paused": True}}).raise_for_status()
    listed = {batch["id"]: batch["ponder"]["waiting"] for batch in http.get("/v1/batches").json()["data"]}
    assert (listed[unread]["reason"], listed[paused]["reason"], listed[queued]) == ("validating", "paused", None)
    alone = http.get(f"/v1/batches/{queued}").json()
    assert alone["ponder"]["waiting"]["reason"] == "window"


def test_any_number_of_batches_takes_the_same_number_of_queries(
    submitted: Any, line: Any, worker: Any, http: httpx2.Client, engine: Engine
) -> None:
    for number in range(12):
        batch = submitted([line(), line("b")], **({"pilot": {"jobs": 1}} if number % 2 else {}))
        if number % 3 == 0:
            http.patch(f"/v1/batches/{batch.id}", json={"ponder": {"paused": True}}).raise_for_status()
    worker.validate()

    def num_queries(limit: int) -> int:
        queries: list[str] = []

        def note(_: Any, __: Any, statement: str, *more: Any) -> None:
            queries.append(statement)

        with engine.connect() as connection:
            rows = connection.execute(
                text("SELECT *, NULL AS results_expired_at FROM batches ORDER BY paused_at LIMIT :limit"),
                {"limit": limit},
            ).all()
            event.listen(connection, "before_cursor_execute", note)
            assert len(batch_objects(connection, rows)) == limit
        return len(queries)

    assert num_queries(12) == num_queries(1)
