"""Somebody drops a file, sees what is in it and what it would cost, and submits it once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from hostile_text import HOSTILE
from playwright.sync_api import Page, Route, expect
from served_api import served
from sqlalchemy import Engine
from visit import OPERATOR_KEY, SIZES, Visit, drop
from world import World

from ponder.embedded.redis import EmbeddedRedis
from ponder.settings import Settings

expect.set_options(timeout=60_000)  # an estimate starts two processes

ROWS = [
    {
        "id": f"gsm8k-{number}",
        "question": f"A baker sells {number} loaves on Monday and {number + 4} on Tuesday. How many in all?",
        "answer": str(2 * number + 4),
        "level": ("easy", "medium", "hard")[number % 3],
    }
    for number in range(40)
]
CONTENT = "\n".join(json.dumps(row) for row in ROWS)


@pytest.fixture
def world(world: World) -> World:
    world.worker()
    return world


def test_a_dropped_file_is_estimated_and_submitted_once(
    visit: Visit, world: World, has_no_barrier: Callable[[Page], None], look: Callable[[Page, str], Path]
) -> None:
    page = visit.page()
    page.goto("/new")
    look(page, "new-file-desktop-light")
    has_no_barrier(page)
    drop(page, CONTENT, "gsm8k.jsonl")
    page.wait_for_url("**/new?file=*")
    expect(page.locator("#prompt")).to_have_value("question")
    expect(page.locator("#answer")).to_have_value("answer")
    expect(page.get_by_role("heading", name="Cost and time")).to_be_visible()
    page.locator("#strategy-best_of_n").check()
    page.locator("#strategy-best_of_n-n").fill("4")
    page.locator("[id='budget.tokens']").fill("2000")
    page.get_by_role("heading", name="Estimate", exact=True).click()
    page.get_by_text("None of all 40 lines would be refused").wait_for()
    expect(page.locator("#check")).to_have_attribute("aria-busy", "false")
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        look(page, f"new-batch-{size}-light")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1440, "height": 900})
    has_no_barrier(page)
    page.get_by_role("button", name="Submit the batch").dblclick()
    page.wait_for_url("**/batches/*")
    [batch] = world.sql("SELECT options FROM batches")
    assert batch.options["strategy"] == {"name": "best_of_n", "n": 4}
    assert batch.options["budget"] == {"tokens": 2000}


def test_an_error_is_told_beside_the_button_and_marks_its_field(visit: Visit, world: World) -> None:
    page = visit.page()
    page.goto("/new")
    page.get_by_text("Paste lines instead").click()
    page.get_by_label("Lines", exact=True).fill("Compute 3 + 4.\nCompute 5 + 6.")
    page.get_by_role("button", name="Continue").click()
    page.locator("#completion_window").fill("90d")
    page.get_by_role("button", name="Submit the batch").click()
    expect(page.locator("#check .problem")).to_contain_text("completion_window")
    expect(page.locator("#completion_window")).to_have_attribute("aria-invalid", "true")
    assert world.sql("SELECT id FROM batches") == []


def test_the_page_works_with_the_keyboard_alone(visit: Visit, world: World) -> None:
    page = visit.page()
    page.goto("/new")
    page.locator("#file").focus()
    assert page.evaluate("document.activeElement.type") == "file"
    page.locator("#file").set_input_files(
        {"name": "a.csv", "mimeType": "text/csv", "buffer": b"question,answer\nCompute 3 + 4.,7\n"}
    )
    page.wait_for_url("**/new?file=*")
    page.locator("#strategy-default").focus()
    for _ in range(4):  # over the strategies with one answer
        page.keyboard.press("ArrowDown")
    expect(page.locator("#strategy-self_consistency")).to_be_checked()
    expect(page.locator("#strategy-self_consistency-n")).to_be_visible()
    page.get_by_role("button", name="Submit the batch").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/batches/*")


def test_a_file_of_another_kind_is_refused_where_it_was_dropped(visit: Visit, world: World) -> None:
    page = visit.page()
    page.goto("/new")
    drop(page, "PK", "sheet.xlsx")
    expect(page.get_by_role("alert").filter(has_text="its name does not show its format")).to_be_visible()
    expect(page.get_by_text("or drop it here")).to_be_visible()
    visit.expect_errors(containing="400")


@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_a_file_over_the_limit_is_refused_before_it_is_sent(
    visit: Visit, world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("ponder.console.pages.new_batch.MAX_BYTES", 3_000)
    page = visit.page()
    page.goto("/new")
    if way == "dropped":
        drop(page, CONTENT, "gsm8k.jsonl")
    else:
        page.locator("#file").set_input_files({"name": "gsm8k.jsonl", "mimeType": "", "buffer": CONTENT.encode()})
    told = page.get_by_role("alert").filter(has_text="a file may have at most 3.0 kB: divide it, or compress it")
    expect(told).to_be_visible()
    assert world.sql("SELECT id FROM files") == []
    expect(page.get_by_text("or drop it here")).to_be_visible()
    drop(page, '{"question": "Compute 3 + 4."}', "small.jsonl")
    page.wait_for_url("**/new?file=*")


class TestStorage:
    @pytest.fixture
    def base_url(self, engine: Engine, redis_server: EmbeddedRedis) -> Iterator[str]:
        with served(engine, redis_server.url, Settings(max_stored_bytes=1_000), OPERATOR_KEY) as url:
            yield url

    @pytest.mark.parametrize("num_bytes", [5_000, 30_000_000])
    def test_a_file_for_which_there_is_no_room_is_refused_with_the_limit_and_a_remedy(
        self, visit: Visit, engine: Engine, num_bytes: int
    ) -> None:
        with httpx2.Client(base_url=visit.base_url, headers={"Authorization": f"Bearer {OPERATOR_KEY}"}) as http:
            http.post("/v1/tenants", json={"name": "small"}).raise_for_status()
            made = http.post("/v1/keys", json={"name": "test", "role": "submit", "tenant": "small"}).raise_for_status()
        page = visit.page(made.json()["key"])
        page.goto("/new")
        page.evaluate("window.stays = true")
        drop(page, "x" * num_bytes, "large.jsonl")
        told = page.get_by_role("alert").filter(has_text=re.compile("more than 1000 bytes: delete some|the limit"))
        expect(told).to_be_visible()
        expect(page.locator("#upload-progress")).to_be_hidden()
        expect(page.get_by_text("or drop it here")).to_be_visible()
        assert page.evaluate("window.stays")
        drop(page, '{"question": "Compute 3 + 4."}', "small.jsonl")
        page.wait_for_url("**/new?file=*")
        visit.expect_errors(containing="429")
        visit.expect_errors(containing="ERR_CONNECTION")


def test_an_old_estimate_does_not_look_current_and_one_check_runs_at_a_time(visit: Visit, world: World) -> None:
    page = visit.page()
    page.goto("/new")
    drop(page, CONTENT, "gsm8k.jsonl")
    page.wait_for_url("**/new?file=*")
    expect(page.get_by_role("heading", name="Cost and time")).to_be_visible()
    check = page.locator("#check")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/new/check", hold)
    page.locator("[id='budget.tokens']").fill("2000")
    expect(check).to_have_attribute("aria-busy", "true")
    expect(page.get_by_text("Estimating …")).to_be_visible()
    shown, grey = (
        page.locator(one).evaluate("one => getComputedStyle(one).color") for one in ("#check td >> nth=0", "#busy")
    )
    assert shown == grey
    until(lambda: len(held) == 1, page)
    page.locator("[id='budget.tokens']").fill("1")
    page.locator("#check-now").click()
    page.wait_for_timeout(1_500)
    assert len(held) == 1  # the server finishes what it has begun
    held[0].fulfill(body="<p>about the form as it was</p>")
    until(lambda: len(held) == 2, page)
    assert "automatic" not in (held[1].request.post_data or "")  # somebody asked for it
    expect(check).not_to_contain_text("as it was")
    held[1].fulfill(body="<p>the newer answer</p>")
    expect(check).to_have_text("the newer answer")
    expect(check).to_have_attribute("aria-busy", "false")
    page.wait_for_timeout(1_000)
    assert len(held) == 2


def test_a_wrong_number_that_is_out_of_sight_is_named_when_the_batch_is_submitted(visit: Visit, world: World) -> None:
    page = visit.page()
    page.goto("/new")
    drop(page, CONTENT, "gsm8k.jsonl")
    page.wait_for_url("**/new?file=*")
    page.locator("#more-budgets summary").click()
    page.locator("[id='budget.tokens_per_sample']").fill("-5")
    page.locator("#more-budgets summary").click()
    page.get_by_role("button", name="Submit the batch").click()
    expect(page.locator("#check .problem")).to_contain_text("tokens_per_sample")
    expect(page.locator("[id='budget.tokens_per_sample']")).to_be_visible()
    expect(page.locator("[id='budget.tokens_per_sample']")).to_have_attribute("aria-invalid", "true")
    assert world.sql("SELECT id FROM batches") == []


def until(holds: Callable[[], bool], page: Page) -> None:
    """Waits while the page's events are handled."""
    for _ in range(300):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen in time")


def test_hostile_rows_are_shown_as_they_are(visit: Visit, world: World) -> None:
    rows = [{"question": text, text[:60] or "x": text, "level": text} for text in HOSTILE[:8]]
    page = visit.page()
    page.goto("/new")
    drop(page, "\n".join(json.dumps(row) for row in rows), f"{HOSTILE[0].replace('/', '')}.jsonl")
    page.wait_for_url("**/new?file=*")
    for text in HOSTILE[:8]:
        expect(page.get_by_role("cell", name=text, exact=True).first).to_be_attached()
    expect(page.get_by_role("heading", name="<script>alert('script')<script>.jsonl")).to_be_visible()
    expect(page.get_by_role("heading", name="Cost and time")).to_be_visible()


def test_without_scripts_the_form_still_submits(visit: Visit, world: World) -> None:
    signed_in = visit.page()
    context = visit.chromium.new_context(
        base_url=visit.base_url, java_script_enabled=False, storage_state=signed_in.context.storage_state()
    )
    page = context.new_page()
    page.goto("/new")
    page.locator("#file").set_input_files({"name": "a.jsonl", "mimeType": "", "buffer": CONTENT.encode()})
    page.get_by_role("button", name="Continue").click()
    page.locator("#strategy-mcts").check()
    page.locator("#strategy-mcts-width").fill("3")
    page.get_by_role("button", name="Check the file and estimate").click()
    expect(page.locator("#check")).to_contain_text("None of all 40 lines would be refused")
    expect(page.locator("#strategy-mcts-width")).to_have_value("3")
    page.get_by_role("button", name="Submit the batch").click()
    page.wait_for_url("**/batches/*")
    [batch] = world.sql("SELECT options FROM batches")
    assert batch.options["strategy"] == {"name": "mcts", "width": 3}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_is_legible_at_every_size_with_an_error_and_a_strategy_chosen(
    visit: Visit, world: World, look: Callable[[Page, str], Path], has_no_barrier: Callable[[Page], None], scheme: str
) -> None:
    page = visit.page(scheme=scheme)
    page.goto("/new")
    drop(page, CONTENT, "gsm8k.jsonl")
    page.wait_for_url("**/new?file=*")
    page.locator("#strategy-best_of_n").check()
    page.locator("#completion_window").fill("90d")
    page.get_by_role("button", name="Submit the batch").click()
    expect(page.locator("#check .problem")).to_contain_text("completion_window")
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        look(page, f"new-batch-error-{size}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    has_no_barrier(page)


def test_the_pages_have_no_barrier_in_the_dark(
    visit: Visit, world: World, has_no_barrier: Callable[[Page], None], look: Callable[[Page, str], Path]
) -> None:
    page = visit.page(scheme="dark", size="phone")
    page.goto("/new")
    look(page, "new-file-phone-dark")
    has_no_barrier(page)
    drop(page, CONTENT + '\n{"question": null}\n', "gsm8k.jsonl")
    page.wait_for_url("**/new?file=*")
    expect(page.get_by_role("heading", name="Cost and time")).to_be_visible()
    look(page, "new-batch-phone-dark")
    has_no_barrier(page)
