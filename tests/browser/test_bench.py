"""The pages of bench runs, as a person sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from bench_runs import cell, run
from hostile_text import HOSTILE
from playwright.sync_api import Page, expect
from visit import OPERATOR_KEY, SIZES, Visit


@pytest.fixture
def keep(base_url: str) -> Callable[..., str]:
    """Keeps a document as a run. Returns its id."""

    def keep(document: Any, name: str = "demo") -> str:
        headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
        body = {"name": name, "document": document}
        answer = httpx2.post(f"{base_url}/v1/bench/runs", json=body, headers=headers, timeout=30)
        return str(answer.raise_for_status().json()["id"])

    return keep


def _runs(keep: Callable[..., str]) -> tuple[str, str]:
    cells = [
        cell(strategy, accuracy + gain, num=100, tokens=tokens, budget=budget)
        for strategy, accuracy, tokens in (("direct", 0.45, 200), ("best_of_n n=8", 0.62, 1_500), ("mcts", 0.7, 4_000))
        for budget, gain in ((512, 0.0), (2_048, 0.12))
    ]
    other = [cell("direct", 0.72, num=100, model="other", budget=512), cell("mcts", 0.71, num=100, budget=512)]
    return keep(run(*cells)), keep(run(*other, name="again"), "again")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_runs_are_seen_at_every_size_without_a_barrier(
    visit: Visit,
    keep: Callable[..., str],
    has_no_barrier: Callable[[Page], None],
    look: Callable[[Page, str], Path],
    scheme: str,
) -> None:
    first, second = _runs(keep)
    for size in SIZES:
        page = visit.page(size=size, scheme=scheme)
        for name, address in {
            "bench": "/bench",
            "bench-run": f"/bench/runs/{first}",
            "bench-comparison": f"/bench/comparison?a={first}&b={second}",
        }.items():
            page.goto(address)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            if name == "bench-run":
                page.locator("#cell-0 summary").first.click()
                expect(page.get_by_text("Generated tokens a second")).to_be_visible()
            look(page, f"{name}-{size}-{scheme}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            has_no_barrier(page)


def test_texts_of_a_run_are_shown_as_they_are(visit: Visit, keep: Callable[..., str]) -> None:
    document = run(*(cell(text, 0.5, model=text) for text in HOSTILE), description=HOSTILE[0])
    document["skipped"] = {HOSTILE[1]: HOSTILE[2]}
    first, second = keep(document, HOSTILE[0]), keep(document, HOSTILE[5])
    page = visit.page()
    page.goto("/bench")
    expect(page.get_by_role("link", name=HOSTILE[0], exact=True)).to_be_visible()
    page.goto(f"/bench/runs/{first}")
    for text in HOSTILE:
        expect(page.get_by_role("link", name=f"{text}, {text}", exact=True)).to_be_visible()
    page.goto(f"/bench/comparison?a={first}&b={second}")
    expect(page.get_by_role("rowheader", name=HOSTILE[3]).first).to_be_visible()
