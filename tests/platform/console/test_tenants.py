"""No page of one tenant shows another tenant's things, and no form changes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from fastapi.routing import APIRoute
from world import World

from ponder.console.app import PAGES

_ROUTES = [
    (method, route.path)
    for module in PAGES
    for route in module.router.routes
    if isinstance(route, APIRoute) and re.search(r"\{(batch|job|run)_id\}", route.path)
    for method in sorted(route.methods)
]


_PARTS = {
    "cost": ("tasks", "summary", "spending", "markets", "waste", "files/tasks.csv"),
    "quality": ("summary", "tables", "time"),
}


@pytest.fixture
def ids(world: World, base_url: str, operator_key: str) -> dict[str, str]:
    """What the home tenant has, by the names of paths' parameters."""
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    batch = world.batch(2, tenant=home.id, key=world.key(home.id), level="a secret of home's")
    [key] = world.sql("SELECT key_id FROM batches WHERE id = :id", id=batch)
    [file] = world.sql("SELECT input_file_id FROM batches WHERE id = :id", id=batch)
    with httpx2.Client(base_url=base_url, headers={"Authorization": f"Bearer {operator_key}"}) as http:
        document = {"name": "a secret of home's", "document": {}}
        run = http.post("/v1/bench/runs", json=document).raise_for_status().json()["id"]
    return {
        "batch_id": batch,
        "job_id": f"job_{world.jobs(batch)[0]}",
        "key_id": key.key_id,
        "run_id": run,
        "tenant_id": home.id,
        "file_id": file.input_file_id,
        "index": "0",
        "number": "0",
        "which": "output",
    }


def test_every_page_with_an_id_is_tried() -> None:
    assert len(_ROUTES) >= 10


def test_no_page_shows_a_stranger_what_is_not_theirs(
    browse: Callable[[str], Any], new_key: Callable[..., str], ids: dict[str, str], world: World
) -> None:
    stranger = browse(new_key("strangers"))
    before = _state(world)
    for method, template in _ROUTES:
        path = re.sub(r"\{(\w+)[^}]*\}", lambda found: ids[found[1]], template)
        answer = stranger.get(path) if method == "GET" else stranger.change(path)
        assert answer.status_code in (400, 403, 404), (method, path)
        assert "a secret of home's" not in answer.text
    assert _state(world) == before


_MALFORMED = {
    "no id": "x",
    "long": "9" * 4_000,
    "a long job": "job_" + "9" * 90,
    "null byte": "batch_%00",
    "lone surrogate": "batch_%ED%A0%80",
    "path": "..%2F..%2Fetc%2Fpasswd",
    "Unicode digits": "job_%D9%A1",
    "negative": "-1",
}
_NAMES = ("batch", "job", "run", "a", "b", "file", "tenant", "key", "id", "index", "number", "cursor", "after", "of")


@pytest.mark.parametrize("malformed", _MALFORMED.values(), ids=_MALFORMED.keys())
def test_no_route_breaks_on_a_malformed_id(browser: Any, malformed: str) -> None:
    query = "&".join(f"{name}={malformed}" for name in _NAMES)
    routes = [route for module in PAGES for route in module.router.routes if isinstance(route, APIRoute)]
    for method, template in [(method, route.path) for route in routes for method in sorted(route.methods)]:
        path = re.sub(r"\{\w+[^}]*\}", lambda _: malformed, template)
        if path == "/sign-out":
            continue
        if method == "GET":
            statuses = [browser.get(f"{path}?{query[:20_000]}").status_code, browser.get(path).status_code]
        else:
            form = dict.fromkeys(_NAMES, unquote(malformed, errors="replace"))
            statuses = [browser.change(path, **form).status_code]
        assert max(statuses) < 500, (method, template)
    for kind in ("batch", "job"):
        assert 400 <= browser.get(f"/events?of={kind}&id={malformed}").status_code < 500


def test_no_page_that_is_asked_about_a_strangers_id_tells_of_it(
    browse: Callable[[str], Any], new_key: Callable[..., str], ids: dict[str, str]
) -> None:
    stranger = browse(new_key("strangers"))
    batch, run, home = ids["batch_id"], ids["run_id"], ids["tenant_id"]
    reports = [f"/{page}/{part}" for page, parts in _PARTS.items() for part in parts]
    for path in (
        *(f"{report}?{query}" for report in reports for query in (f"batch={batch}", f"tenant={home}", "tenant=all")),
        f"/cost/comparison?a={batch}&b={batch}",
        f"/bench/comparison?a={run}&b={run}",
        f"/new?file={ids['file_id']}",
        f"/settings/tenants?tenant={home}",
    ):
        answer = stranger.get(path)
        assert answer.status_code in (200, 303, 400, 403, 404), path
        assert "a secret of home's" not in answer.text, path


def test_no_form_changes_what_a_stranger_names(
    browse: Callable[[str], Any], new_key: Callable[..., str], ids: dict[str, str], world: World
) -> None:
    stranger = browse(new_key("strangers"))
    before = _state(world)
    for path, form in (
        ("/settings/keys/revoke", {"key": ids["key_id"], "id": ids["key_id"]}),
        ("/settings/tenants/quota", {"tenant": ids["tenant_id"], "tokens": "1"}),
        ("/settings/retention", {"tenant": ids["tenant_id"], "days": "1"}),
        ("/settings/budgets", {"of": ids["key_id"], "key": ids["key_id"], "tokens_per_day": "1"}),
        ("/settings/prices", {"machine": "h100", "market": "spot", "dollars_per_hour": "1", "source": "me"}),
        ("/new/remove", {"file": ids["file_id"]}),
        ("/tenant", {"tenant": ids["tenant_id"]}),
    ):
        assert stranger.change(path, **form).status_code in (400, 403, 404), path
    assert _state(world) == before


@pytest.mark.parametrize("of", ["batch", "job"])
def test_no_stream_tells_a_stranger_of_changes(
    browse: Callable[[str], Any], new_key: Callable[..., str], ids: dict[str, str], of: str
) -> None:
    stranger = browse(new_key("strangers"))
    assert stranger.get(f"/events?of={of}&id={ids[f'{of}_id']}").status_code == 404


def test_a_key_that_may_only_read_changes_nothing(
    browse: Callable[[str], Any], new_key: Callable[..., str], ids: dict[str, str], world: World
) -> None:
    reader = browse(new_key(role="read"))
    before = _state(world)
    for method, template in _ROUTES:
        if method != "GET":
            path = re.sub(r"\{(\w+)[^}]*\}", lambda found: ids[found[1]], template)
            assert reader.change(path).status_code in (400, 403, 404), path
    assert _state(world) == before


def _state(world: World) -> list[Any]:
    return [
        *world.sql("SELECT id, state, paused_at, limit_tokens, limit_nanodollars FROM batches ORDER BY id"),
        *world.sql("SELECT id, role, revoked_at FROM api_keys ORDER BY id"),
        *world.sql("SELECT count(*) FROM bench_runs"),
        *world.sql("SELECT id, deleted_at FROM files ORDER BY id"),
        *world.sql("SELECT * FROM tenants ORDER BY id"),
        *world.sql("SELECT * FROM budgets"),
        *world.sql("SELECT count(*) FROM price_book"),
        *world.sql("SELECT viewed_tenant_id FROM console_sessions ORDER BY viewed_tenant_id"),
    ]
