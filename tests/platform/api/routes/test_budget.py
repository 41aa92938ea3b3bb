"""Budgets, pauses and other changes of a batch through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

Submitted = Callable[..., openai.types.Batch]


@pytest.mark.parametrize(
    ("budget", "param"),
    [
        ({"dollars": -1}, "ponder.batch_budget.dollars"),
        ({"dollars": 0}, "ponder.batch_budget.dollars"),
        ({"tokens": 0}, "ponder.batch_budget.tokens"),
        ({"tokens": -5}, "ponder.batch_budget.tokens"),
        ({"tokens": 1.5}, "ponder.batch_budget.tokens"),
        ({"dollars": 1e10}, "ponder.batch_budget.dollars"),
        ({"euros": 1}, "ponder.batch_budget.euros"),
    ],
)
def test_a_malformed_budget_is_refused_by_its_field(
    submitted: Submitted, line: Any, http: httpx2.Client, budget: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        submitted([line()], batch_budget=budget)
    assert refusal.value.param == param
    batch = submitted([line()])
    answer = http.patch(f"/v1/batches/{batch.id}", json={"ponder": {"batch_budget": budget}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_infinite_dollars_are_refused(http: httpx2.Client, submitted: Submitted, line: Any) -> None:
    batch = submitted([line()])
    for number in ("Infinity", "NaN", "-Infinity"):
        body = f'{{"ponder": {{"batch_budget": {{"dollars": {number}}}}}}}'
        answer = http.patch(
            f"/v1/batches/{batch.id}", content=body.encode(), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400
        assert "ponder.batch_budget.dollars" in answer.json()["error"]["message"]


def test_a_change_leaves_what_it_does_not_name_and_null_lifts_a_limit(
    http: httpx2.Client, submitted: Submitted, line: Any
) -> None:
    batch = submitted([line()], batch_budget={"dollars": 0.5, "tokens": 1000})

    def changed(**body: Any) -> Any:
        answer = http.patch(f"/v1/batches/{batch.id}", json=body).raise_for_status().json()
        limits = answer["ponder"]["budget"] or {}
        return limits.get("limit_nanodollars"), limits.get("limit_tokens"), answer["ponder"]["paused"]

    assert changed() == (500_000_000, 1000, False)
    assert changed(ponder={"batch_budget": {"tokens": 2000}}) == (500_000_000, 2000, False)
    assert changed(ponder={"batch_budget": {"dollars": None}, "paused": True}) == (None, 2000, True)
    assert changed(ponder={"paused": False}) == (None, 2000, False)
    assert changed(ponder={"batch_budget": None}) == (None, None, False)


def test_a_window_counts_from_the_submission_and_must_not_be_over(
    http: httpx2.Client, submitted: Submitted, line: Any
) -> None:
    batch = submitted([line()])
    longer = http.patch(f"/v1/batches/{batch.id}", json={"completion_window": "2d"}).json()
    assert (longer["completion_window"], longer["expires_at"] - longer["created_at"]) == ("2d", 2 * 86_400)
    refused = http.patch(f"/v1/batches/{batch.id}", json={"completion_window": "5"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "completion_window")


def test_an_ended_batch_and_that_of_another_tenant_cannot_be_changed(
    http: httpx2.Client, stranger: httpx2.Client, submitted: Submitted, line: Any
) -> None:
    batch = submitted([line()])
    assert stranger.patch(f"/v1/batches/{batch.id}", json={"ponder": {"paused": True}}).status_code == 404
    assert http.get(f"/v1/batches/{batch.id}").json()["ponder"]["paused"] is False
    http.post(f"/v1/batches/{batch.id}/cancel").raise_for_status()
    assert http.patch(f"/v1/batches/{batch.id}", json={"ponder": {"paused": True}}).status_code == 409
