"""The page of latency and quality, as a person sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from report_history import settle_history
from visit import SIZES, Visit
from world import World


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_latency_and_quality_are_seen_at_every_size_without_a_barrier(
    visit: Visit,
    world: World,
    has_no_barrier: Callable[[Page], None],
    look: Callable[[Page, str], Path],
    scheme: str,
) -> None:
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    settle_history(world, home.id)
    for size in SIZES:
        page = visit.page(size=size, scheme=scheme)
        page.goto("/quality")
        expect(page.locator(".later")).to_have_count(0)
        expect(page.get_by_text("Cost per completed workflow")).to_be_visible()
        look(page, f"quality-{size}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        has_no_barrier(page)


def test_a_tenant_without_jobs_sees_what_will_be_here(visit: Visit, has_no_barrier: Callable[[Page], None]) -> None:
    page = visit.page()
    page.goto("/quality")
    expect(page.get_by_role("heading", name="No job has ended here yet")).to_be_visible()
    has_no_barrier(page)


def test_times_are_grouped_and_drawn_as_chosen(visit: Visit, world: World) -> None:
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    settle_history(world, home.id, levels=("1",), num_jobs=2)
    page = visit.page()
    page.goto("/quality")
    page.get_by_role("link", name="Model", exact=True).click()
    expect(page.get_by_role("rowheader", name="qwen3-8b").first).to_be_visible()
    page.get_by_role("link", name="By hour").click()
    expect(page.get_by_text("hour (UTC)").first).to_be_visible()
    expect(page.get_by_role("heading", name="By model")).to_be_visible()
