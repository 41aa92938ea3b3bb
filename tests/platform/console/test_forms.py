"""No text in any field makes a form of the console fail: it is accepted, or refused with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx2
import pytest
from batch_form import ROWS, form_of, lines_of, token_of, uploaded
from fastapi._compat import ModelField
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from world import World

from ponder.console.app import PAGES

_TROUBLESOME = (
    *("1e999", "-1e999", "NaN", "Infinity", "1e308", "1_000", "0x10", "9" * 400, "9" * 5_000, "-1", "0", "true"),
    *("null", "[" * 5_000, '{"seconds": 1e999}', "[NaN]", '"', "\x00", "a\x00b", "\u202e", "\U0001f4a9", "hex"),
)
_TEXT = st.sampled_from(_TROUBLESOME) | st.text(max_size=30)


def _names(field: ModelField) -> list[str]:
    """Returns the names of a query's fields, which a page may have as one model."""
    kind = field.field_info.annotation
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return list(kind.model_fields) if is_model else [field.alias]


_FORMS = {
    route.path: [field.alias for field in route.dependant.body_params]
    for module in PAGES
    for route in module.router.routes
    if isinstance(route, APIRoute) and "POST" in route.methods and route.dependant.body_params
}
_SHORT = _TEXT.filter(lambda text: len(text) <= 500)
"""Texts that fit into an address."""
_QUERIES = {
    route.path: [name for field in route.dependant.query_params for name in _names(field)]
    for module in PAGES
    for route in module.router.routes
    if isinstance(route, APIRoute) and "GET" in route.methods and route.dependant.query_params
}
_MAKES_BATCH = ("/new", "/new/check")
_with_fixtures = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_forms_of_settings_are_among_those_that_are_tried() -> None:
    assert {"/settings/budgets", "/settings/prices", "/settings/prune", "/settings/webhook"} <= _FORMS.keys()


@pytest.fixture
def place(browser: httpx2.Client, world: World) -> Callable[[str], str]:
    """Fills the parameters of a path with what there is."""
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    batch = world.batch(3, tenant=home.id)
    worker = world.worker()
    jobs = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(jobs[0])], work=world.work(*jobs))
    headers = {"Authorization": "Bearer pk-operator"}
    run = browser.post("/v1/bench/runs", json={"name": "run", "document": {}}, headers=headers).json()["id"]
    known = {"batch_id": batch, "job_id": f"job_{jobs[0]}", "run_id": run, "index": "0", "number": "0"}

    def fill(path: str) -> str:
        return re.sub(r"\{(\w+)[^}]*\}", lambda found: known.get(found[1], "tasks"), path)

    return fill


@pytest.mark.parametrize("path", sorted(_FORMS.keys() - {*_MAKES_BATCH, "/sign-in"}))
def test_a_form_takes_or_refuses_whatever_is_typed(
    browser: httpx2.Client, place: Callable[[str], str], path: str
) -> None:
    token = token_of(browser)

    @_with_fixtures
    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(_FORMS[path], _TEXT)))
    def try_form(form: dict[str, str]) -> None:
        answer = browser.post(place(path), data=form, headers={"HX-Request": "true", "X-CSRF-Token": token})
        assert answer.status_code < 500, (form, answer.text)

    try_form()


@pytest.mark.parametrize("path", sorted(_QUERIES))
def test_a_filter_takes_or_refuses_whatever_stands_in_the_address(
    browser: httpx2.Client, place: Callable[[str], str], path: str
) -> None:
    @_with_fixtures
    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(_QUERIES[path], _SHORT)))
    def try_query(query: dict[str, str]) -> None:
        answer = browser.get(place(path), params=query)
        assert answer.status_code < 500, (query, answer.text)

    try_query()


def test_the_filters_of_a_batch_and_a_job_are_tried_on_pages_that_there_are(
    browser: httpx2.Client, place: Callable[[str], str]
) -> None:
    for path in ("/batches/{batch_id}", "/jobs/{job_id}"):
        assert path in _QUERIES
        assert browser.get(place(path)).status_code == 200, path


def test_batches_until_the_last_day_that_there_is_are_listed(browser: httpx2.Client) -> None:
    assert browser.get("/", params={"until": "9999-12-31"}).status_code < 500


@pytest.mark.parametrize("path", _MAKES_BATCH)
def test_the_form_of_a_batch_takes_or_refuses_whatever_is_typed(
    browser: httpx2.Client, world: World, path: str
) -> None:
    world.worker()
    form = form_of(browser.get(uploaded(browser, lines_of(ROWS))).text)
    names = sorted(form.keys() - {"csrf_token"})

    @_with_fixtures
    @given(st.dictionaries(st.sampled_from(names), _TEXT, min_size=1, max_size=3))
    def try_form(changed: dict[str, str]) -> None:
        answer = browser.post(path, data=form | changed, headers={"HX-Request": "true"})
        assert answer.status_code < 500, (changed, answer.text)

    try_form()


def test_a_form_without_its_fields_says_what_is_missing(browser: httpx2.Client) -> None:
    token = token_of(browser)
    for path in (*_MAKES_BATCH, "/new/file", "/new/remove"):
        answer = browser.post(path, data={"csrf_token": token}, headers={"X-CSRF-Token": token})
        assert answer.status_code in (200, 400, 404), (path, answer.text)
        told = re.search(r'class="problem"[^>]*>(.*?)</p>|</h1>\s*<p>(.*?)</p>', answer.text, re.S)
        assert told is not None, (path, answer.text)
        assert re.search("no such file|choose the field|purpose|field required", told[0], re.I), (path, told[0])
