"""Signing in and out, and what somebody sees who is not signed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine, text
from visit import OPERATOR_KEY, SIZES, Visit
from world import World


def test_somebody_who_is_not_signed_in_is_led_to_the_page_they_wanted(visit: Visit) -> None:
    page = visit.anonymous()
    page.goto("/?from=mail")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("API key").fill(OPERATOR_KEY)
    page.keyboard.press("Enter")
    page.wait_for_url("**/?from=mail")


def test_a_wrong_key_is_told_and_signs_nobody_in(visit: Visit) -> None:
    page = visit.anonymous()
    page.goto("/sign-in")
    page.get_by_label("API key").fill("pk-wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert").filter(has_text="not a valid API key")).to_be_visible()
    page.goto("/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    visit.expect_errors(containing="401")


def test_after_signing_out_the_former_page_asks_to_sign_in(visit: Visit) -> None:
    page = visit.page()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto("/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_session_ends_with_its_key(visit: Visit, engine: Engine) -> None:
    page = visit.page()
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET revoked_at = clock_timestamp()"))
    page.goto("/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    visit.expect_errors(containing="401")  # of the stream, if it began after the key had ended


def test_a_link_signs_in_once(visit: Visit) -> None:
    asked = httpx2.post(f"{visit.base_url}/v1/console/links", headers={"Authorization": f"Bearer {OPERATOR_KEY}"})
    path = asked.json()["path"]
    page = visit.anonymous()
    page.goto(path)
    expect(page.get_by_role("heading", name="Batches", exact=True)).to_be_visible()
    other = visit.anonymous()
    other.goto(path)
    expect(other.get_by_role("alert").filter(has_text="has been used")).to_be_visible()
    visit.expect_errors(containing="401")


def test_a_new_batch_appears_by_itself(visit: Visit, world: World) -> None:
    page = visit.page()
    expect(page.get_by_text("No batches yet")).to_be_visible()
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    batch = world.batch(3, tenant=home.id)
    expect(page.locator(f'a[href="/batches/{batch}"]')).to_be_visible()


def test_a_page_whose_stream_is_refused_listens_again(visit: Visit, world: World) -> None:
    page = visit.page()
    page.route("**/events?*", lambda route: route.fulfill(status=503), times=2)
    page.goto("/")
    expect(page.get_by_text("No batches yet")).to_be_visible()
    with page.expect_response(lambda answer: "/events" in answer.url and answer.status == 200):
        pass
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    batch = world.batch(3, tenant=home.id)
    expect(page.locator(f'a[href="/batches/{batch}"]')).to_be_visible()
    visit.expect_errors(containing="503")


def test_a_page_whose_stream_is_refused_leads_to_the_sign_in_once_the_session_has_ended(
    visit: Visit, world: World
) -> None:
    page = visit.page()
    page.route("**/events?*", lambda route: route.fulfill(status=503))
    page.goto("/?from=mail")
    world.sql("UPDATE api_keys SET revoked_at = clock_timestamp()")
    page.wait_for_url("**/sign-in?next=**")
    visit.expect_errors(containing="503")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_signing_in_has_no_barrier(visit: Visit, has_no_barrier: Callable[[Page], None], scheme: str) -> None:
    page = visit.anonymous(scheme=scheme)
    page.goto("/sign-in")
    has_no_barrier(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_of_batches_has_no_barrier(
    visit: Visit, world: World, has_no_barrier: Callable[[Page], None], look: Callable[[Page, str], Path], scheme: str
) -> None:
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    for number in range(1, 4):
        world.batch(number, tenant=home.id)
    for size in SIZES:
        page = visit.page(size=size, scheme=scheme)
        look(page, f"batches-{size}-{scheme}")
        has_no_barrier(page)
