"""The plots of the fleet's page: steps of time that are over."""

from __future__ import annotations

import re
import time
from typing import Any

from world import World


def _sample(world: World, incarnation: str, at: str) -> None:
    world.sql(
        f"""
        INSERT INTO worker_samples (incarnation_id, at, seconds, kv_usage, num_running, num_waiting, prompt_tokens,
            generated_tokens, computed_tokens, num_steps, num_preemptions, prefix_queries, prefix_hits, memory_bytes)
        VALUES (:id, {at}, 2, 0.5, 7, 3, 4000, 9000, 9000, 100, 0, 10, 8, 1000000)
        """,
        id=incarnation,
    )


def test_the_bill_has_the_colours_of_the_page_of_costs_and_no_legend(browser: Any, world: World) -> None:
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    world.batch(2, tenant=home.id)
    worker = world.worker()
    first, second = world.claim_all(worker)
    world.tick(worker, settled=[world.passed(first)], work=world.work(first, second))
    world.tally()
    world.fold_costs()
    for address, title in (("/fleet", "Cost of the fleet by use"), ("/cost/waste", "Spending by kind")):
        page = browser.get(address).raise_for_status().text
        [figure] = [one for one in re.findall("<figure>.*?</figure>", page, re.S) if title in one]
        assert re.findall(r'class="bar ([\w-]+)"[^>]*><title>(\w+):', figure)[0] == ("series-good", "chosen")
        assert ("series-2", "pending") in re.findall(r'class="bar ([\w-]+)"[^>]*><title>(\w+):', figure)
        assert "legend" not in figure


def test_the_minute_that_is_not_over_is_not_drawn(browser: Any, world: World) -> None:
    worker = world.worker()
    _sample(world, worker, "date_trunc('minute', clock_timestamp()) - interval '90 s'")
    earlier = browser.get("/fleet").raise_for_status().text
    assert earlier.count('class="dot series-1"') == 4
    while time.time() % 60 > 50:
        time.sleep(0.5)
    _sample(world, worker, "clock_timestamp()")
    assert browser.get("/fleet").text.count('class="dot series-1"') == 4
