"""The page of the fleet, as an operator and as somebody else sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_text import HOSTILE
from playwright.sync_api import Page, expect
from visit import SIZES, Visit
from world import World

from ponder.fleet.decision import Action, Decision
from ponder.fleet.fleet_log import log_decision
from ponder.fleet.provider import Pool

_ENDINGS = ("its lease expired", "preempted by aws notice, 118 s before", "SIGTERM", "it was drained")


@pytest.fixture
def busy(world: World) -> World:
    """A fleet of an hour: workers of two machines, four of which ended, with samples, a log and waiting work."""
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    workers = [
        world.worker(machine=machine, market=market, worker=f"{machine}-{market}-{number}")
        for number in range(3)
        for machine, market in (("h200", "spot"), ("a100", "on_demand"))
    ]
    world.sql("UPDATE incarnations SET started_at = started_at - (random() + 0.2) * interval '1 hour'")
    world.sql(
        """
        INSERT INTO worker_samples (incarnation_id, at, seconds, kv_usage, num_running, num_waiting, prompt_tokens,
            generated_tokens, computed_tokens, num_steps, num_preemptions, prefix_queries, prefix_hits, memory_bytes)
        SELECT id, clock_timestamp() - minute * interval '1 minute', 2, 0.5 + 0.4 * sin(minute / 9.0 + length(machine)),
               20 + minute % 7, minute % 5, 4000, 9000 + 100 * (minute % 11), 9000, 100, 0, 10, 8, 1000000
        FROM incarnations CROSS JOIN generate_series(0, 50) AS minute
        """
    )
    for worker, reason in zip(workers, _ENDINGS, strict=False):
        world.sql(
            "UPDATE incarnations SET state = 'ended', end_reason = :reason, room_tokens = 0, "
            "ended_at = clock_timestamp() - random() * interval '10 minutes' WHERE id = :id",
            id=worker,
            reason=reason,
        )
    with world.engine.begin() as connection:
        for action in (Action.START, Action.READY, Action.DRAIN):
            decision = Decision(
                action, Pool("demo", "h200", "spot"), "the backlog needs 3 workers until 06:00", "h200-spot-1"
            )
            log_decision(connection, decision)
    world.batch(40, tenant=home.id, tokens=50_000, expires_in_s=7_200)
    world.batch(5, tenant=home.id, tokens=9_000, lane="interactive", expires_in_s=600)
    return world


def test_an_operator_sees_workers_what_became_of_them_and_why(visit: Visit, busy: World) -> None:
    page = visit.page()
    page.get_by_role("link", name="Fleet").click()
    workers = page.get_by_role("region", name="Workers", exact=True)
    expect(workers.get_by_role("row")).to_have_count(3)  # the head and two workers
    expect(page.get_by_role("cell", name="notice preempted by aws notice, 118 s before")).to_be_visible()
    expect(page.get_by_text("1 lost, 1 reclaimed")).to_be_visible()
    expect(page.get_by_role("cell", name="the backlog needs 3 workers until 06:00").first).to_be_visible()
    expect(page.get_by_role("img", name="Backlog of demo by deadline")).to_be_visible()
    expect(page.get_by_role("img", name="KV cache in use")).to_be_visible()
    page.get_by_role("link", name="6 h").click()
    expect(page.get_by_text("Ended in 6 h")).to_be_visible()


def test_a_worker_that_comes_and_goes_does_so_on_the_page(visit: Visit, world: World) -> None:
    page = visit.page()
    page.goto("/fleet")
    expect(page.get_by_role("heading", name="No workers")).to_be_visible()
    worker = world.worker(worker="newcomer")
    expect(page.get_by_role("rowheader", name="newcomer")).to_be_visible()
    world.sql(
        "UPDATE incarnations SET state = 'ended', ended_at = clock_timestamp(), end_reason = 'its lease expired' "
        "WHERE id = :id",
        id=worker,
    )
    expect(page.get_by_text("1 lost, 0 reclaimed")).to_be_visible()


def test_a_tenant_is_told_that_only_operators_see_the_fleet(visit: Visit, world: World) -> None:
    world.worker(worker="secret-worker")
    world.sql("UPDATE api_keys SET role = 'submit'")
    page = visit.page()
    page.goto("/fleet")
    expect(page.get_by_role("heading", name="Only an operator sees the fleet")).to_be_visible()
    expect(page.get_by_text("secret-worker")).to_have_count(0)


def test_names_that_would_be_scripts_are_shown_as_they_are(visit: Visit, world: World) -> None:
    for hostile in HOSTILE:
        world.worker(worker=hostile, model=hostile)
    page = visit.page()
    page.goto("/fleet")
    for hostile in HOSTILE[:4]:
        expect(page.get_by_role("rowheader").filter(has_text=hostile).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_fleet_has_no_barrier(
    visit: Visit, busy: World, has_no_barrier: Callable[[Page], None], look: Callable[[Page, str], Path], scheme: str
) -> None:
    for size in SIZES:
        page = visit.page(size=size, scheme=scheme)
        page.goto("/fleet")
        look(page, f"fleet-{size}-{scheme}")
        has_no_barrier(page)
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, size


def test_what_somebody_has_opened_stays_open_when_the_page_changes(visit: Visit, world: World) -> None:
    world.worker()
    page = visit.page()
    page.goto("/fleet")
    opened = page.locator("#live details").first
    opened.locator("summary").click()
    expect(opened).to_have_attribute("open", "")
    with page.expect_response(lambda answer: answer.url.endswith("/fleet")):
        world.worker()
    expect(page.locator("#live dl.tiles dd").first).to_contain_text("2")
    expect(opened).to_have_attribute("open", "")
