"""The size of a list of batches does not grow with the batches' errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2


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
