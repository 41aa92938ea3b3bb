"""The page of a batch and the list of batches: who may see and change what, and what comes of a change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hostile_text import HOSTILE
from markupsafe import escape
from world import World

from ponder.domain.state import Verdict

_ACTIONS = ("pause", "resume", "cancel", "retry", "confirm", "budget")


@pytest.fixture
def home(world: World, base_url: str) -> str:
    [row] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return str(row.id)


@pytest.fixture
def settled(world: World, home: str) -> str:
    """A batch of two passed jobs, one failed and one that still runs."""
    batch = world.batch(4, tenant=home, level="3")
    worker = world.worker()
    first, second, third, fourth = sorted(world.claim_all(worker))
    failed = replace(world.passed(third), verdict=Verdict.FAILED, answer="41")
    world.tick(
        worker,
        settled=[world.passed(first), world.passed(second), failed],
        work=world.work(first, second, third, fourth),
    )
    world.tick(worker)
    world.tally()
    world.fold_costs()
    return batch


def test_a_batch_is_shown_with_its_counts_plots_and_jobs(browser: Any, settled: str) -> None:
    page = browser.get(f"/batches/{settled}").raise_for_status().text
    assert "3 of 4" in page
    assert "66.7 %" in page
    assert page.count('class="plot"') == 4
    assert page.count('href="/jobs/job_') == 4
    levels = browser.get(f"/batches/{settled}/levels").text
    assert "?level=3#jobs" in levels
    more = re.search(r'href="(/cost\?[^"]+)"', levels)
    assert more is not None
    assert f'<option value="{settled}" selected>' in browser.get(more[1]).text


def test_jobs_that_never_ran_do_not_count_as_done(browser: Any, settled: str, world: World) -> None:
    world.cancel(settled)
    [worker] = world.num_ticks
    world.tick(worker)
    world.finish()
    for address in (f"/batches/{settled}", "/"):
        page = browser.get(address).text
        assert re.search(r"3 of 4\b", page)
        assert "1 cancelled" in page
        assert '<progress max="4" value="3"' in page


def test_the_list_of_jobs_is_sorted_and_filtered_by_its_address(browser: Any, settled: str) -> None:
    wrong = browser.get(f"/batches/{settled}?verdict=failed&search=&state=&min_tokens=").text
    assert wrong.count('href="/jobs/job_') == 1
    assert "41" in wrong
    dear = browser.get(f"/batches/{settled}?sort=cost&order=desc").text
    assert dear.count('href="/jobs/job_') == 3
    assert 'aria-sort="descending"' in dear
    assert "No jobs of this batch match" in browser.get(f"/batches/{settled}?search=none").text
    assert "no object with the id" in browser.get(f"/batches/{settled}?after=job_999999").text
    assert browser.get(f"/batches/{settled}?sort=colour").status_code == 400


def test_pausing_resuming_and_cancelling_take_effect(browser: Any, settled: str, world: World) -> None:
    def paused() -> bool:
        return world.sql("SELECT paused_at FROM batches WHERE id = :id", id=settled)[0].paused_at is not None

    answer = browser.change(f"/batches/{settled}/pause")
    assert (answer.status_code, answer.headers["HX-Trigger"], paused()) == (200, "ponder:stale", True)
    assert "/resume" in browser.get(f"/batches/{settled}").text
    browser.change(f"/batches/{settled}/resume").raise_for_status()
    assert not paused()
    browser.change(f"/batches/{settled}/cancel").raise_for_status()
    assert world.state(settled) == "cancelling"
    refused = browser.change(f"/batches/{settled}/pause")
    assert (refused.status_code, refused.headers["HX-Retarget"]) == (409, "#notice")


def test_the_budget_is_changed_by_what_is_given(browser: Any, settled: str, world: World) -> None:
    browser.change(f"/batches/{settled}/budget", dollars="12.5", tokens="").raise_for_status()
    browser.change(f"/batches/{settled}/budget", dollars="", tokens="1000").raise_for_status()
    [row] = world.sql("SELECT limit_tokens, limit_nanodollars FROM batches WHERE id = :id", id=settled)
    assert tuple(row) == (1_000, 12_500_000_000)
    assert ">$12.50</data>" in browser.get(f"/batches/{settled}").text
    for wrong in ({}, {"dollars": "-1"}, {"tokens": "0"}, {"dollars": "much"}):
        refused = browser.change(f"/batches/{settled}/budget", **wrong)
        assert (refused.status_code, refused.headers["HX-Retarget"]) == (400, "#notice")


def test_a_retry_leads_to_the_new_batch(browser: Any, settled: str, world: World) -> None:
    browser.change(f"/batches/{settled}/cancel")
    assert browser.change(f"/batches/{settled}/retry").status_code == 409
    world.sql("UPDATE jobs SET state = 'failed' WHERE line = 4")
    world.sql("UPDATE batches SET state = 'completed', completed_at = now(), followed_line = NULL")
    answer = browser.change(f"/batches/{settled}/retry")
    new = answer.headers["HX-Redirect"].removeprefix("/batches/")
    assert len(world.jobs(new)) == 1
    assert settled in browser.get(f"/batches/{new}").text


def test_results_are_downloaded_once_the_batch_has_ended(browser: Any, settled: str, world: World) -> None:
    assert browser.get(f"/batches/{settled}/output.jsonl").status_code == 404
    world.cancel(settled)
    [worker] = world.num_ticks
    world.tick(worker)
    world.finish()
    lines = browser.get(f"/batches/{settled}/output.jsonl").text.splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["line-1", "line-2", "line-3"]
    assert "attachment" in browser.get(f"/batches/{settled}/errors.jsonl").headers["Content-Disposition"]
    assert f"/batches/{settled}/output.jsonl" in browser.get(f"/batches/{settled}").text


def test_a_pruned_batch_says_that_its_results_have_expired(browser: Any, settled: str, world: World) -> None:
    world.sql("UPDATE results SET answer = 'private words'")
    assert "private words" in browser.get(f"/batches/{settled}").text
    world.cancel(settled)
    world.finish()
    world.sql("UPDATE batches SET pruned_at = clock_timestamp()")
    page = browser.get(f"/batches/{settled}").text
    assert "The results have expired" in page
    assert "private words" not in page


def test_a_stranger_finds_no_batch_and_changes_none(
    browse: Callable[[str], Any], new_key: Callable[..., str], settled: str, world: World
) -> None:
    stranger = browse(new_key("strangers"))
    for path in ("", "/levels", "/output.jsonl", "/errors.jsonl"):
        assert stranger.get(f"/batches/{settled}{path}").status_code == 404
    for action in _ACTIONS:
        assert stranger.change(f"/batches/{settled}/{action}", dollars="1").status_code == 404
    assert settled not in stranger.get("/").text
    assert world.state(settled) == "in_progress"


def test_a_key_that_may_only_read_and_a_foreign_page_change_nothing(
    browser: Any, browse: Callable[[str], Any], new_key: Callable[..., str], settled: str, world: World
) -> None:
    reader = browse(new_key(role="read"))
    page = reader.get(f"/batches/{settled}").text
    assert "3 of 4" in page
    assert "<dialog" not in page
    for action in _ACTIONS:
        assert reader.change(f"/batches/{settled}/{action}", dollars="1").status_code == 403
        assert browser.post(f"/batches/{settled}/{action}", data={"dollars": "1"}).status_code == 403
    assert world.state(settled) == "in_progress"


def test_only_some_of_many_rejected_lines_are_shown_at_first(browser: Any, settled: str, world: World) -> None:
    world.sql(
        "INSERT INTO rejected_lines (batch_id, line, code, message)"
        " SELECT :id, line, 'invalid_value', 'wrong ' || line FROM generate_series(10, 209) AS line",
        id=settled,
    )
    page = browser.get(f"/batches/{settled}").text
    assert page.count("<code>invalid_value</code>") == 50
    assert browser.get(f"/batches/{settled}?errors=all").text.count("<code>invalid_value</code>") == 200


def test_texts_of_users_are_never_markup(browser: Any, settled: str, world: World) -> None:
    for hostile in (one for one in HOSTILE if escape(one) != one):
        world.sql("UPDATE jobs SET custom_id = :text || line, level = :text, model = :text", text=hostile)
        world.sql("UPDATE results SET answer = :text", text=hostile)
        world.sql(
            "UPDATE batches SET metadata = jsonb_build_object('name', CAST(:text AS text), 'k', CAST(:text AS text))",
            text=hostile,
        )
        for path in (f"/batches/{settled}", "/", f"/batches/{settled}/levels"):
            assert hostile not in browser.get(path).raise_for_status().text
        for parameter in ("search", "level"):
            assert hostile not in browser.get(f"/batches/{settled}", params={parameter: hostile}).text
        assert hostile not in browser.get("/", params={"search": hostile, "model": hostile}).text


def test_the_list_of_batches_is_filtered_by_its_address(browser: Any, settled: str, home: str, world: World) -> None:
    other = world.batch(1, tenant=home)
    world.sql("""UPDATE batches SET metadata = '{"name": "evening run", "team": "maths"}' WHERE id = :id""", id=other)
    found = browser.get("/?search=evening&state=&since=&until=").text
    assert (other in found, settled in found) == (True, False)
    assert "evening run" in found
    assert "team=maths" in found
    assert "No batches match" in browser.get("/?state=failed").text
    assert browser.get("/?since=2020-01-01&until=2020-01-31").text.count("/batches/batch_") == 0
    assert settled in browser.get("/?until=2999-12-31").text
