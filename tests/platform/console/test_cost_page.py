"""The page of costs and its parts, as a browser asks for them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from report_history import settle_history
from world import World

_PARTS = ("summary", "tasks", "spending", "markets", "waste")


@pytest.fixture
def home(world: World, base_url: str) -> str:
    """The tenant of the operator, once the API has made it."""
    [row] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return str(row.id)


@pytest.fixture
def batches(world: World, home: str) -> list[str]:
    return settle_history(world, home, models=("demo",), levels=("1", "2"), num_jobs=4)


def test_a_page_shows_what_the_reports_say(browser: httpx2.Client, batches: list[str]) -> None:
    page = browser.get("/cost").text
    assert "Cost per successful task" in page
    assert 'hx-get="/cost/summary?"' in page
    assert "beam_search" in page
    assert 'hx-get="/cost/waste?"' in page  # which reads the ledger, so that the page does not wait for it
    for part in _PARTS:
        answer = browser.get(f"/cost/{part}")
        assert answer.status_code == 200
        assert "<svg" in answer.text
        assert "<!doctype" not in answer.text


def test_filters_stand_in_the_address_and_in_that_of_every_part(browser: httpx2.Client, batches: list[str]) -> None:
    page = browser.get("/cost", params={"batch": batches[0], "since": "2020-01-01"}).text
    for part in _PARTS[1:]:
        assert f"/cost/{part}?batch={batches[0]}&amp;since=2020-01-01" in page
    of_one = browser.get("/cost/tasks", params={"batch": batches[0]}).text
    assert "direct" in of_one
    assert "beam_search" not in of_one
    assert "No job matches" in browser.get("/cost/tasks", params={"until": "2020-01-01"}).text


def test_two_batches_are_compared_and_other_prices_are_tried(browser: httpx2.Client, batches: list[str]) -> None:
    compared = browser.get("/cost/comparison", params={"a": batches[0], "b": batches[2]})
    words = (
        r"A success of (.) costs <strong>([\d.]+) times</strong> that of (.)\s+\(95 % interval ([\d.]+) to ([\d.]+)\)"
    )
    [(dear, ratio, cheap, low, high)] = re.findall(words, compared.text)
    assert {dear, cheap} == {"A", "B"}
    assert float(ratio) >= 1
    assert float(low) <= float(ratio) <= float(high)
    turned = browser.get("/cost/comparison", params={"a": batches[2], "b": batches[0]})
    assert re.findall(words, turned.text)[0][:3] == (cheap, ratio, dear)
    assert re.search(r"p (= 0\.\d*[1-9]|= 1|&lt; 0\.001)", compared.text)
    priced = browser.get("/cost/what-if", params={"machine": "h100", "market": "on_demand"})
    assert "The same work would have cost" in priced.text
    assert browser.get("/cost/what-if", params={"dollars_per_hour": "-1"}).status_code == 400
    assert browser.get("/cost/comparison", params={"a": "colour=red", "b": batches[0]}).status_code == 400


@pytest.mark.parametrize("name", ["tasks", "spending", "models", "markets", "waste"])
def test_every_table_is_a_file_for_spreadsheets(browser: httpx2.Client, batches: list[str], name: str) -> None:
    answer = browser.get(f"/cost/files/{name}.csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows
    assert any("nanodollars" in column for column in rows[0])
    assert browser.get("/cost/files/nothing.csv").status_code == 404


def test_a_file_holds_no_formula_that_a_user_wrote(browser: httpx2.Client, world: World, home: str) -> None:
    settle_history(world, home, models=("=1+2",), levels=("@SUM(A1)",), num_jobs=1)
    for row in csv.DictReader(io.StringIO(browser.get("/cost/files/tasks.csv").text)):
        assert (row["model"], row["level"]) == ("'=1+2", "'@SUM(A1)")


def test_a_bad_filter_is_told_beside_the_filters(browser: httpx2.Client) -> None:
    for query in ("since=yesterday", "since=2026-02-02&until=2026-02-01"):
        page = browser.get(f"/cost?{query}")
        assert page.status_code == 400
        assert 'class="problem"' in page.text
        assert 'id="filter-since"' in page.text


def test_a_tenant_sees_nothing_of_another(
    browse: Callable[[str], Any], new_key: Callable[..., str], batches: list[str], home: str
) -> None:
    stranger = browse(new_key("strangers", "read"))
    assert "Nothing was spent here yet" in stranger.get("/cost").text
    assert "Compare two sets" not in stranger.get("/cost").text
    assert "all tenants" not in stranger.get("/cost").text
    assert stranger.get("/cost", params={"batch": batches[0]}).status_code == 404
    for part in _PARTS:
        answer = stranger.get(f"/cost/{part}", params={"batch": batches[0]})
        assert "beam_search" not in answer.text
        assert "$0" not in answer.text
        for tenant in ("all", home):
            assert stranger.get(f"/cost/{part}", params={"tenant": tenant}).status_code == 403
    assert stranger.get("/cost/comparison", params={"a": batches[0], "b": batches[1]}).status_code == 404
    assert stranger.get("/cost/files/tasks.csv").text.strip() == ""


def test_an_operator_chooses_a_tenant_or_all(browser: httpx2.Client, world: World, batches: list[str]) -> None:
    other = world.tenant()
    settle_history(world, other, models=("other-model",), levels=("1",), num_jobs=2)
    assert "other-model" in browser.get("/cost/spending", params={"tenant": other}).text
    assert "other-model" not in browser.get("/cost/spending").text
    together = browser.get("/cost/spending", params={"tenant": "all"}).text
    assert "Spending by tenant" in together
    assert "home" in together
