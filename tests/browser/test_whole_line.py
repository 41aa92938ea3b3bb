"""A real stack and a real model: from a dropped file to a bill, as a person would go through it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from visit import Visit, drop

pytestmark = pytest.mark.timeout(600)

_PROBLEMS = [
    ("Compute 3 + 4.", "7"),
    ("Compute 12 - 5.", "7"),
    ("Compute (2 + 3) * 4.", "20"),
    ("Compute 6 * 7 - 2.", "40"),
    ("Compute 81 - 4 * 9.", "45"),
    ("Compute (17 + 8) * 3 - 4 * (9 - 5).", "59"),
]
_LONG_S = 180_000
"""Milliseconds, in truth: a busy machine computes answers slowly."""


@pytest.fixture
def ponder(home: Path, free_port: int) -> Iterator[Callable[..., str]]:
    """The command line of a stack that runs; what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PONDER_")}
    environment |= {"PONDER_HOME": str(home), "PONDER_PORT": str(free_port)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ponder.cli", *arguments],
            capture_output=True, text=True, env=environment, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("up")
    yield run
    run("down")


def test_a_file_becomes_answers_trees_and_a_bill(
    chromium: Browser, ponder: Callable[..., str], free_port: int, look: Callable[[Page, str], Path]
) -> None:
    visit = Visit(chromium, f"http://127.0.0.1:{free_port}", [])
    page = visit.anonymous()
    page.goto(ponder("open", "--print").strip())
    expect(page.get_by_role("heading", name="No batches yet")).to_be_visible()

    batches = [_submit(page, strategy) for strategy in ("beam_search", "best_of_n")]
    for batch in batches:
        page.goto(f"/batches/{batch}")
        expect(page.get_by_text("completed", exact=True).first).to_be_visible(timeout=_LONG_S)
    look(page, "whole-batch")

    page.goto(f"/batches/{batches[0]}")
    page.get_by_role("region", name="List of jobs").get_by_role("link").filter(has_text="row-6").click()
    page.wait_for_selector(".tree-picture [data-node]")
    look(page, "whole-job")
    before = page.locator(".tree-picture [data-node]").count()
    page.get_by_role("button", name="Fold all", exact=True).click()
    assert page.locator(".tree-picture [data-node]").count() < before
    page.get_by_role("button", name="Chosen path").click()
    expect(page.locator("#tree-details")).to_contain_text("leads to the answer")

    page.goto(f"/cost?a={batches[0]}&b={batches[1]}")
    expect(page.get_by_text(re.compile("A success of [AB] costs"))).to_be_visible(timeout=_LONG_S)
    look(page, "whole-cost")

    stopped = _submit(page, "best_of_n", copies=60)
    page.goto(f"/batches/{stopped}")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the batch").click()
    expect(page.get_by_text("cancelled", exact=True).first).to_be_visible(timeout=_LONG_S)

    ponder("tenant", "create", "strangers")
    key = json.loads(ponder("key", "create", "theirs", "--tenant", "strangers", "--format", "json"))["key"]
    theirs = visit.page(key)
    expect(theirs.get_by_role("heading", name="No batches yet")).to_be_visible()
    for path in (f"/batches/{batches[0]}", f"/batches/{stopped}"):
        assert theirs.goto(path).status == 404  # type: ignore[union-attr]
    visit.expect_errors(containing="404")

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    assert visit.troubles == []


def _submit(page: Page, strategy: str, copies: int = 1) -> str:
    """Drops the problems on the form and submits them. Returns the batch's id."""
    rows = [{"question": question, "answer": answer, "level": "1"} for question, answer in _PROBLEMS * copies]
    page.goto("/new")
    drop(page, "\n".join(map(json.dumps, rows)), "problems.jsonl")
    page.wait_for_url("**/new?file=*")
    page.locator(f"#strategy-{strategy}").check()
    page.locator("[id='budget.tokens']").fill("1500")
    page.get_by_role("button", name="Submit the batch").click()
    page.wait_for_url("**/batches/*", timeout=60_000)
    return page.url.rpartition("/")[2]
