"""A batch and the list of batches, as a person sees and changes them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_text import HOSTILE
from playwright.sync_api import Page, expect
from visit import SIZES, Visit
from world import World

from ponder.domain.state import Verdict
from ponder.jobs.tick import Usage, Work
from ponder.ledger.cost_totals import begin_costs


@pytest.fixture
def home(world: World, base_url: str) -> str:
    [row] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return str(row.id)


@pytest.fixture
def batch(world: World, home: str) -> str:
    """A batch of three hours, with jobs of several levels, costs and verdicts, a budget, and rejected lines."""
    chance = random.Random(7)
    batch_id = world.batch(60, tenant=home, budget={"tokens": 4_096}, strategy="best_of_n")
    world.sql("DELETE FROM cost_totals")
    world.sql("UPDATE jobs SET level = CAST(1 + mod(line, 5) AS text), custom_id = 'algebra/' || line || '-of-60'")
    with world.engine.begin() as connection:
        begin_costs(connection, batch_id)
    worker = world.worker()
    jobs = sorted(world.claim_all(worker))[:44]
    for job in jobs:
        found = replace(
            world.passed(job),
            verdict=chance.choices(list(Verdict), (6, 3, 1))[0],
            answer=chance.choice(("42", "x = 17/3", "The set of all even numbers below one hundred, except 2 and 4")),
            usage=Usage(prompt_tokens=90, completion_tokens=round(chance.lognormvariate(7, 0.8))),
        )
        world.tick(worker, settled=[found], work=[Work(job, chance.lognormvariate(0, 1))])
        world.tally()
    world.sql("UPDATE batches SET limit_nanodollars = 5000000000, num_lines = 63")
    world.sql("""UPDATE batches SET metadata = '{"name": "Algebra, evening run", "team": "maths"}'""")
    world.sql(
        "INSERT INTO rejected_lines (batch_id, line, code, message, param)"
        " SELECT :id, line, 'invalid_value', 'max_tokens must be at least 1', 'body.max_tokens'"
        " FROM generate_series(61, 63) AS line",
        id=batch_id,
    )
    world.sql("UPDATE ledger_entries SET nanodollars = nanodollars * 100 + job_id * 1000 WHERE job_id IS NOT NULL")
    world.fold_costs()
    world.sql("UPDATE batches SET created_at = now() - interval '3 hours', in_progress_at = now() - interval '3 hours'")
    world.sql("DELETE FROM batch_history")
    world.sql(
        """
        INSERT INTO batch_history (batch_id, begin_at, num_completed, num_passed, num_judged_wrong, num_unverified,
                                   prompt_tokens, generated_tokens, direct_nanodollars)
        SELECT :id, date_bin('1 minute', now(), 'epoch') - minute * interval '1 minute',
               1 + mod(minute, 3), mod(minute, 3), 1, CAST(mod(minute, 9) = 0 AS int), 90,
               2000 + CAST(1500 * sin(minute / 20.0) AS int), 14000000
        FROM generate_series(1, 175) AS minute
        """,
        id=batch_id,
    )
    world.sql("UPDATE batch_totals SET direct_nanodollars = 2450000000, num_rejected = 3")
    return batch_id


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_batch_has_no_barrier(
    visit: Visit, batch: str, has_no_barrier: Callable[[Page], None], look: Callable[[Page, str], Path], scheme: str
) -> None:
    for size in SIZES:
        page = visit.page(size=size, scheme=scheme)
        look(page, f"list-{size}-{scheme}")
        has_no_barrier(page)
        page.goto(f"/batches/{batch}")
        expect(page.get_by_role("region", name="By strategy and level").get_by_role("row")).not_to_have_count(0)
        look(page, f"batch-{size}-{scheme}")
        has_no_barrier(page)
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width <= 0, "the page itself does not scroll sideways"
        page.get_by_role("button", name="Cancel…").click()
        has_no_barrier(page)
        look(page, f"cancel-{size}-{scheme}")


def test_somebody_finds_the_dearest_failed_job_with_the_keyboard_and_mouse(visit: Visit, batch: str) -> None:
    page = visit.page()
    page.get_by_role("link", name="Algebra, evening run").click()
    page.get_by_label("Verdict", exact=True).select_option("failed")
    page.get_by_label("custom_id", exact=True).fill("algebra/")
    page.keyboard.press("Enter")
    page.wait_for_url("**verdict=failed**")
    jobs = page.get_by_role("region", name="List of jobs")
    expect(jobs.get_by_text("passed")).to_have_count(0)
    jobs.get_by_role("link", name="Cost").click()
    expect(jobs.get_by_role("columnheader", name="Cost")).to_have_attribute("aria-sort", "descending")
    costs = [float(cell.get_attribute("value") or 0) for cell in jobs.locator("td:nth-of-type(6) data").all()]
    assert costs == sorted(costs, reverse=True)
    assert costs


def test_somebody_pauses_raises_the_budget_and_cancels(visit: Visit, batch: str, world: World) -> None:
    page = visit.page()
    page.goto(f"/batches/{batch}")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert").filter(has_text="Paused.")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    expect(page.get_by_text("paused", exact=True)).to_be_visible()
    page.get_by_role("button", name="Budget…").click()
    page.get_by_role("dialog").get_by_label("Dollars").fill("80")
    page.keyboard.press("Enter")
    expect(page.get_by_text("of $80.00")).to_be_visible()
    page.get_by_role("button", name="Cancel…").click()
    page.keyboard.press("Escape")
    assert world.state(batch) == "in_progress"
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the batch").click()
    expect(page.get_by_text("cancelling")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel…")).to_have_count(0)


def test_a_refused_change_is_told(visit: Visit, batch: str, world: World) -> None:
    page = visit.page()
    page.goto(f"/batches/{batch}")
    page.get_by_role("button", name="Cancel…").click()
    world.sql("UPDATE batches SET state = 'completed', completed_at = now() WHERE id = :id", id=batch)
    page.get_by_role("button", name="Cancel the batch").click()
    expect(page.get_by_role("alert").filter(has_text="can no longer be cancelled")).to_be_visible()
    visit.expect_errors(containing="409")


def test_a_page_follows_its_batch_and_keeps_what_somebody_does(visit: Visit, batch: str, world: World) -> None:
    page = visit.page()
    page.goto(f"/batches/{batch}")
    shown = page.get_by_text(re.compile(r"^\s*\d+ of 63"))
    num_done = int(shown.first.inner_text().split()[0])
    page.get_by_label("Level", exact=True).fill("4")
    page.locator("#plot-1 summary").click()
    [worker] = world.num_ticks
    job = world.sql("SELECT min(job_id) AS id FROM attempts WHERE ended_at IS NULL")[0].id
    world.tick(worker, settled=[world.passed(job)], work=world.work(job))
    expect(page.get_by_text(f"{num_done + 1} of 63").first).to_be_visible()
    expect(page.get_by_label("Level", exact=True)).to_have_value("4")
    expect(page.locator("#plot-1 table")).to_be_visible()


def test_hostile_texts_are_shown_as_they_are(visit: Visit, batch: str, world: World) -> None:
    for line, hostile in enumerate(HOSTILE, 1):
        values = {"text": hostile, "line": line}
        world.sql("UPDATE jobs SET custom_id = :text, level = :text, model = :text WHERE line = :line", **values)
        world.sql("UPDATE results SET answer = :text WHERE job_id = (SELECT id FROM jobs WHERE line = :line)", **values)
    world.sql("UPDATE rejected_lines SET message = :text, code = :text, param = :text", text=HOSTILE[0])
    world.sql(
        "UPDATE batches SET metadata = jsonb_build_object('name', CAST(:text AS text), '<b>', CAST(:text AS text))",
        text=HOSTILE[1],
    )
    page = visit.page()
    expect(page.get_by_role("link", name=HOSTILE[1])).to_be_visible()
    page.goto(f"/batches/{batch}")
    jobs = page.get_by_role("region", name="List of jobs")
    for hostile in HOSTILE:
        assert " ".join(hostile.split()) in " ".join((jobs.text_content() or "").split())
    page.goto(f"/batches/{batch}?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&level=%27onfocus=alert(1)")
    expect(page.get_by_label("custom_id", exact=True)).to_have_value('"><script>alert(1)</script>')


def test_the_costs_by_level_follow_the_last_change(visit: Visit, world: World, home: str) -> None:
    batch_id = world.batch(2, tenant=home)
    page = visit.page()
    page.goto(f"/batches/{batch_id}")
    expect(page.locator("#levels")).to_contain_text("0 of 2")
    worker = world.worker()
    for job in world.claim_all(worker):
        world.tick(worker, settled=[world.passed(job)], work=world.work(job))
        world.tally()
        world.fold_costs()
        page.wait_for_timeout(1_500)
    expect(page.locator("#levels")).to_contain_text("2 of 2", timeout=15_000)
