"""The page of latency and quality and its parts, as a browser asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from report_history import settle_history
from world import World

_PARTS = ("summary", "tables", "time")


@pytest.fixture
def batches(world: World, base_url: str) -> list[str]:
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return settle_history(world, home.id, models=("demo",), levels=("1",), num_jobs=6)


def test_the_first_numbers_of_a_serving_team_are_shown(browser: httpx2.Client, batches: list[str]) -> None:
    shown = browser.get("/quality/summary").text
    for title in (
        *("End to end", "First token", "First visible token", "Input tokens", "Answer tokens"),
        *("Validation failure rate", "Retry rate", "Cache hit rate", "Cost per completed workflow"),
    ):
        assert f">{title}</dt>" in shown
    assert " at p95" in shown


def test_a_page_asks_for_its_parts_with_its_filters(browser: httpx2.Client, batches: list[str]) -> None:
    page = browser.get("/quality", params={"batch": batches[0], "by": "model", "each": "hour"}).text
    assert f"/quality/tables?batch={batches[0]}&amp;by=model" in page
    assert f"/quality/time?batch={batches[0]}&amp;each=hour" in page
    assert browser.get("/quality", params={"by": "colour"}).status_code == 400
    assert browser.get("/quality", params={"since": "yesterday"}).status_code == 400


@pytest.mark.parametrize("each", ["day", "hour"])
def test_times_and_rates_are_drawn_over_time(browser: httpx2.Client, batches: list[str], each: str) -> None:
    drawn = browser.get("/quality/time", params={"each": each}).text
    for title in ("End to end", "Time to the first token", "Failures and retries", "Cache hit rate", "Cost"):
        assert f"<figcaption>{title}</figcaption>" in drawn
    assert "Nothing to show" not in drawn


def test_a_few_days_are_drawn_by_the_hour(browser: httpx2.Client, world: World, batches: list[str]) -> None:
    assert "day (UTC)" in browser.get("/quality/time").text
    world.sql("UPDATE jobs SET settled_at = now(), created_at = now() - interval '1 minute'")
    assert "hour (UTC)" in browser.get("/quality/time").text
    assert "day (UTC)" in browser.get("/quality/time", params={"each": "day"}).text


def test_every_dimension_groups_the_tables(browser: httpx2.Client, batches: list[str]) -> None:
    for by in ("strategy", "model", "level", "worker_model", "machine", "market"):
        assert "<table>" in browser.get("/quality/tables", params={"by": by}).text
    for name in ("latency", "quality"):
        assert "beam_search" in browser.get(f"/quality/files/{name}.csv").text


def test_a_tenant_sees_nothing_of_another(
    browse: Callable[[str], Any], new_key: Callable[..., str], batches: list[str]
) -> None:
    stranger = browse(new_key("strangers", "read"))
    assert stranger.get("/quality", params={"batch": batches[0]}).status_code == 404
    for part in _PARTS:
        shown = stranger.get(f"/quality/{part}", params={"batch": batches[0]}).text
        assert "No job has ended here yet" in shown
        assert stranger.get(f"/quality/{part}", params={"tenant": "all"}).status_code == 403
