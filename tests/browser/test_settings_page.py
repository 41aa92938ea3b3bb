"""Settings are changed on their page; a key and a secret are shown once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from hostile_text import HOSTILE
from playwright.sync_api import Page, expect
from visit import OPERATOR_KEY, SIZES, Visit
from world import World


@pytest.fixture
def keys(visit: Visit) -> Callable[..., str]:
    """Makes a key of the tenant `acme`."""

    def make(name: str, role: str = "submit") -> str:
        headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
        httpx2.post(f"{visit.base_url}/v1/tenants", json={"name": "acme"}, headers=headers)
        body = {"name": name, "role": role, "tenant": "acme"}
        return str(httpx2.post(f"{visit.base_url}/v1/keys", json=body, headers=headers).json()["key"])

    return make


def test_a_key_is_made_used_and_revoked(visit: Visit, keys: Callable[..., str]) -> None:
    page = visit.page(keys("mine"))
    page.goto("/settings")
    page.get_by_label("Name of a new key").fill("the nightly job")
    page.get_by_role("button", name="Create key").click()
    key = page.locator("#new-key").inner_text()
    assert key.startswith("pk-")
    other = visit.page(key)
    expect(other.get_by_role("heading", name="Batches", exact=True)).to_be_visible()
    page.get_by_text("Revoke the nightly job").click()
    page.get_by_role("button", name="Revoke it").and_(page.locator(":visible")).click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    other.goto("/")
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_form_that_is_refused_keeps_what_was_typed(visit: Visit) -> None:
    page = visit.page()
    page.goto("/settings")
    page.get_by_text("Set a price").click()
    page.get_by_label("Machine", exact=True).fill("h100x8")
    page.get_by_label("Dollars an hour").fill("cheap")
    page.get_by_label("Source", exact=True).fill("a contract")
    page.get_by_role("button", name="Set the price").click()
    expect(page.locator("#prices-told")).to_contain_text("dollars_per_hour")
    expect(page.get_by_label("Machine", exact=True)).to_have_value("h100x8")
    page.get_by_label("Dollars an hour").fill("19.95")
    page.get_by_role("button", name="Set the price").click()
    expect(page.locator("#prices")).to_contain_text("$19.95")
    expect(page.locator("#prices-told")).to_contain_text("The price holds from now on.")


def test_an_operator_sets_a_tenants_budget_and_looks_at_it(visit: Visit, keys: Callable[..., str]) -> None:
    keys("theirs")
    page = visit.page()
    page.goto("/settings")
    page.get_by_role("button", name="Edit acme").click()
    page.locator("#tenants input[name=dollars_per_day]").fill("12.5")
    page.locator("#tenants").get_by_role("button", name="Set the budget").click()
    expect(page.locator("#tenants").get_by_text("The budget is set.")).to_be_visible()
    page.locator("#tenants tr").filter(has_text="acme").get_by_role("button", name="View as this tenant").click()
    expect(page.get_by_text("You are looking at the tenant acme")).to_be_visible()
    page.goto("/settings")
    expect(page.get_by_role("heading", name="Settings of acme")).to_be_visible()
    expect(page.locator("#budgets")).to_contain_text("of $12.50")
    expect(page.get_by_role("button", name="Create key")).to_have_count(0)


def test_hostile_names_are_shown_as_they_are(visit: Visit, keys: Callable[..., str]) -> None:
    for name in HOSTILE[:6]:
        keys(name)
    page = visit.page()
    page.goto("/settings")
    for name in HOSTILE[:6]:
        expect(page.locator("#keys").get_by_text(name, exact=True).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_barrier(
    visit: Visit,
    world: World,
    keys: Callable[..., str],
    has_no_barrier: Callable[[Page], None],
    look: Callable[[Page, str], Path],
    scheme: str,
) -> None:
    keys("the nightly job")
    keys("a reader", "read")
    [acme] = world.sql("SELECT id FROM tenants WHERE name = 'acme'")
    world.limit(acme.id, None, "day", tokens=2_000_000, nanodollars=50 * 10**9)
    for size in SIZES:
        page = visit.page(size=size, scheme=scheme)
        page.goto("/settings")
        look(page, f"settings-{size}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        has_no_barrier(page)
    reader = visit.page(keys("another reader", "read"), scheme=scheme)
    reader.goto("/settings")
    look(reader, f"settings-reader-{scheme}")
    has_no_barrier(reader)
