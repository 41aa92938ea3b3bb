"""The page of costs, as a person sees it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_text import HOSTILE
from playwright.sync_api import Page, expect
from report_history import settle_history
from visit import SIZES, Visit
from world import World


@pytest.fixture
def home(world: World, base_url: str) -> str:
    """The tenant of the operator, once the API has made it."""
    [row] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return str(row.id)


def _open(page: Page, address: str = "/cost") -> Page:
    page.goto(address)
    expect(page.locator(".later")).to_have_count(0)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_costs_are_seen_at_every_size_without_a_barrier(
    visit: Visit,
    world: World,
    home: str,
    has_no_barrier: Callable[[Page], None],
    look: Callable[[Page, str], Path],
    scheme: str,
) -> None:
    batches = settle_history(world, home)
    query = f"a=strategy%3Ddirect&b={batches[7]}&machine=h200&market=on_demand"
    for size in SIZES:
        page = _open(visit.page(size=size, scheme=scheme), f"/cost?{query}")
        expect(page.get_by_text(re.compile("A success of [AB] costs"))).to_be_visible()
        expect(page.get_by_text("The same work would have cost")).to_be_visible()
        look(page, f"cost-{size}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        has_no_barrier(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_tenant_without_jobs_sees_what_will_be_here(
    visit: Visit, has_no_barrier: Callable[[Page], None], look: Callable[[Page, str], Path], scheme: str
) -> None:
    page = _open(visit.page(scheme=scheme))
    page.goto("/cost")
    expect(page.get_by_role("heading", name="Nothing was spent here yet")).to_be_visible()
    look(page, f"cost-empty-{scheme}")
    has_no_barrier(page)


def test_texts_of_users_are_shown_as_they_are(visit: Visit, world: World, home: str) -> None:
    settle_history(world, home, models=("demo",), levels=HOSTILE, num_jobs=1)
    world.sql("UPDATE jobs SET model = level WHERE level IS NOT NULL")
    page = _open(visit.page())
    for level in HOSTILE:
        expect(page.get_by_role("cell", name=level, exact=True).first).to_be_visible()


def test_two_strategies_are_chosen_and_compared(visit: Visit, world: World, home: str) -> None:
    settle_history(world, home)
    page = _open(visit.page())
    page.get_by_role("combobox", name="A", exact=True).select_option("strategy=direct")
    page.get_by_role("combobox", name="B", exact=True).select_option("strategy=best_of_n")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text(re.compile("A success of [AB] costs"))).to_be_visible()
