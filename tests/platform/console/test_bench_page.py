"""The pages of bench runs, as a browser asks for them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from bench_runs import cell, run
from growth import MOST_GROWTH, growth

from ponder.console.pages.reports.bench_comparison import pairs_of
from ponder.console.pages.reports.bench_document import BenchDocument, read_document


@pytest.fixture
def http(base_url: str, operator_key: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {operator_key}"}, timeout=30) as client:
        yield client


@pytest.fixture
def keep(http: httpx2.Client) -> Callable[[Any], str]:
    """Keeps a document as a run. Returns its id."""

    def keep(document: Any, name: str = "demo") -> str:
        answer = http.post("/v1/bench/runs", json={"name": name, "document": document})
        return str(answer.raise_for_status().json()["id"])

    return keep


def test_runs_are_listed_and_shown(browser: httpx2.Client, keep: Callable[[Any], str]) -> None:
    assert "No bench runs yet" in browser.get("/bench").text
    run_id = keep(run(cell("direct", 0.6), cell("best_of_n n=8", 0.8)))
    assert f'href="/bench/runs/{run_id}"' in browser.get("/bench").text
    page = browser.get(f"/bench/runs/{run_id}").text
    assert "best_of_n n=8" in page
    assert "80 %" in page
    assert "<svg" in browser.get(f"/bench/runs/{run_id}/cells/1").text
    assert browser.get(f"/bench/runs/{run_id}/cells/2").status_code == 404


def test_the_document_is_given_back_as_it_was_sent(browser: httpx2.Client, keep: Callable[[Any], str]) -> None:
    document = run(cell("direct", 0.6)) | {"of_another_release": [1, 2]}
    answer = browser.get(f"/bench/runs/{keep(document)}/document.json")
    assert json.loads(answer.text) == document
    assert "attachment" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("document", [{}, {"cells": 3}, {"suite": {"name": "x"}, "cells": [{}]}])
def test_a_document_of_another_form_is_offered_as_it_is(
    browser: httpx2.Client, keep: Callable[[Any], str], document: Any
) -> None:
    run_id, other = keep(document), keep(run(cell("direct", 0.6)))
    assert "cannot be shown" in browser.get(f"/bench/runs/{run_id}").text
    assert "cannot be shown" in browser.get("/bench/comparison", params={"a": run_id, "b": other}).text
    assert browser.get(f"/bench/runs/{run_id}/cells/0").status_code == 404


@pytest.mark.parametrize("field", ["began_at", "ended_at"])
@pytest.mark.parametrize("moment", [-1.0, 1.7e12, 1e300])
def test_a_run_at_no_moment_of_a_calendar_is_offered_as_it_is(
    browser: httpx2.Client, keep: Callable[[Any], str], field: str, moment: float
) -> None:
    run_id = keep(run(cell("direct", 0.6)) | {field: moment})
    assert browser.get(f"/bench/runs/{run_id}").status_code == 200


def test_twice_the_cells_take_about_twice_the_time_to_compare() -> None:
    key = {"data": "d", "model": "m", "strategy": "s"}

    def document(num: int) -> BenchDocument:
        accuracy = {"num_problems": 1, "num_jobs": 1, "pass_1": {"value": 0.5}}
        cells = [{"key": key | {"budget_tokens": n // 2}, "accuracy": accuracy} for n in range(num)]
        return BenchDocument.model_validate({"suite": {"name": "x"}, "began_at": 1, "ended_at": 2, "cells": cells})

    documents = {num: document(num) for num in (1_000, 2_000)}
    assert growth(lambda num: list(pairs_of(documents[num], documents[num])), 1_000) < MOST_GROWTH


def test_cells_of_two_runs_are_compared_where_only_the_model_differs(
    browser: httpx2.Client, keep: Callable[[Any], str]
) -> None:
    a = keep(run(cell("direct", 0.3, num=400), cell("mcts", 0.5)))
    b = keep(run(cell("best_of_n n=8", 0.9), cell("direct", 0.7, num=400, model="other")))
    page = browser.get("/bench/comparison", params={"a": a, "b": b}).text
    assert "+40.0 points" in page
    assert "higher" in page
    assert "mcts" not in page
    cost = browser.get("/bench/comparison/cost", params={"a": a, "b": b, "a_cell": 0, "b_cell": 1})
    assert cost.status_code == 200
    nothing = keep(run(cell("beam_search", 0.3)))
    assert "Nothing to compare" in browser.get("/bench/comparison", params={"a": a, "b": nothing}).text


def test_a_difference_that_the_intervals_explain_may_be_chance(
    browser: httpx2.Client, keep: Callable[[Any], str]
) -> None:
    a, b = keep(run(cell("direct", 0.5, num=10))), keep(run(cell("direct", 0.6, num=10)))
    assert "may be chance" in browser.get("/bench/comparison", params={"a": a, "b": b}).text


def test_a_tenant_sees_no_run_of_another(
    browse: Callable[[str], Any], new_key: Callable[..., str], keep: Callable[[Any], str]
) -> None:
    run_id = keep(run(cell("direct", 0.6)))
    stranger = browse(new_key("strangers", "read"))
    assert run_id not in stranger.get("/bench").text
    for path in (
        f"/bench/runs/{run_id}",
        f"/bench/runs/{run_id}/document.json",
        f"/bench/runs/{run_id}/cells/0",
        f"/bench/comparison?a={run_id}&b={run_id}",
        f"/bench/comparison/cost?a={run_id}&b={run_id}&a_cell=0&b_cell=0",
    ):
        assert stranger.get(path).status_code == 404


def test_a_run_of_the_bench_is_read_in_full() -> None:
    """What the bench writes has every field that pages show."""
    document = run(cell("direct", 0.6))
    read = read_document(copy.deepcopy(document))
    assert read is not None
    shown = read.model_dump(mode="json")
    assert _missing(shown, document) == []


def _missing(shown: Any, document: Any, path: str = "") -> list[str]:
    if isinstance(shown, dict) and isinstance(document, dict):
        return [
            name
            for field, value in shown.items()
            for name in (
                _missing(value, document[field], f"{path}.{field}") if field in document else [f"{path}.{field}"]
            )
        ]
    if isinstance(shown, list) and isinstance(document, list):
        return [name for one, other in zip(shown, document, strict=True) for name in _missing(one, other, path)]
    return []
