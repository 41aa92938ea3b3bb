"""The page of a job over HTTP: what it says, to whom, and how long texts are cut."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from example_tree import example_tree
from world import World

from ponder.console.pages.job_tree import outline, tree_view


@pytest.fixture
def home(world: World, base_url: str) -> str:
    [row] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    return str(row.id)


@pytest.fixture
def settled(world: World, home: str) -> Callable[..., str]:
    """Settles a job with a tree. Returns the page's address."""

    def settle(tree: dict[str, Any], **request: Any) -> str:
        batch = world.batch(1, tenant=home)
        world.sql(
            "UPDATE jobs SET request = request || CAST(:request AS jsonb) WHERE batch_id = :id",
            id=batch,
            request=json.dumps(request),
        )
        worker = world.worker()
        [job] = world.claim_all(worker)
        world.tick(worker, settled=[replace(world.passed(job), tree=tree)], work=world.work(job))
        return f"/jobs/job_{job}"

    return settle


def test_a_page_tells_the_question_the_answer_and_the_attempts(
    browser: httpx2.Client, settled: Callable[..., str]
) -> None:
    call = {"id": "call_1", "function": {"name": "look_up", "arguments": '{"word": "x"}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is 1 + 1?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    page = browser.get(settled(example_tree(12), messages=messages, reference="two", budget={"tokens": 5_000}))
    assert page.status_code == 200
    for words in ("What is 1 + 1?", "look_up", "✓ passed", "two", "at most 5,000 tokens", "h200", "settled"):
        assert words in page.text


def test_a_job_waits_until_a_worker_runs_it_on_both_pages(browser: httpx2.Client, world: World, home: str) -> None:
    batch = world.batch(1, tenant=home)
    [row] = world.sql("SELECT id FROM jobs WHERE batch_id = :id", id=batch)
    pages = [f"/jobs/job_{row.id}", f"/batches/{batch}"]
    badge = re.compile(r'<span class="badge (busy)?">(waiting|running)</span>')
    assert [badge.findall(browser.get(page).text) for page in pages] == [[("", "waiting")]] * 2
    world.claim_all(world.worker())
    assert [("busy", "running") in badge.findall(browser.get(page).text) for page in pages] == [True, True]


def test_nobody_sees_another_tenants_job(
    browse: Callable[..., httpx2.Client], new_key: Callable[..., str], settled: Callable[..., str]
) -> None:
    address = settled(example_tree(12))
    stranger = browse(new_key("strangers"))
    for path in (address, f"{address}/tree.json", f"{address}/tree.json?export=true", f"{address}/nodes/1"):
        assert stranger.get(path).status_code == 404


def test_a_key_that_may_only_read_sees_the_page(
    browse: Callable[..., httpx2.Client], new_key: Callable[..., str], settled: Callable[..., str]
) -> None:
    assert browse(new_key(role="read")).get(settled(example_tree(12))).status_code == 200


def test_long_texts_are_cut_and_there_in_full_when_asked_for(
    browser: httpx2.Client, settled: Callable[..., str]
) -> None:
    tree = example_tree(12)
    tree["nodes"][1]["text"] = "long " * 20_000
    address = settled(tree, messages=[{"role": "user", "content": "why? " * 20_000}])
    assert len(browser.get(address).content) < 50_000
    assert "why? " * 20_000 in browser.get(f"{address}?show=question").text
    assert len(browser.get(f"{address}/tree.json").content) < 20_000
    assert "long " * 20_000 in browser.get(f"{address}/nodes/1").text
    exported = browser.get(f"{address}/tree.json?export=true")
    assert exported.json()["tree"]["nodes"][1]["text"] == "long " * 20_000
    assert exported.headers["Content-Disposition"].startswith("attachment")


def test_a_node_that_is_not_there_is_not_found(browser: httpx2.Client, settled: Callable[..., str]) -> None:
    address = settled(example_tree(12))
    for path in ("nodes/12", "nodes/-1", "nodes/1?step=1"):
        assert browser.get(f"{address}/{path}").status_code == 404


def test_a_job_without_a_tree_and_one_that_waits_say_so(browser: httpx2.Client, world: World, home: str) -> None:
    [job] = world.jobs(world.batch(1, tenant=home))
    page = browser.get(f"/jobs/job_{job}").text
    for words in ("Waiting.", "Nothing has been generated yet", "No worker has taken it yet"):
        assert words in page
    assert browser.get(f"/jobs/job_{job}/tree.json").json()["steps"] == []


def test_results_that_have_expired_leave_what_they_cost(
    browser: httpx2.Client, world: World, settled: Callable[..., str]
) -> None:
    address = settled(example_tree(12))
    world.sql("UPDATE batches SET pruned_at = clock_timestamp()")
    page = browser.get(address).text
    assert "No longer kept." in page
    assert "$" in page


def test_only_the_first_nodes_are_listed_as_text_until_all_are_asked_for(
    browser: httpx2.Client, settled: Callable[..., str]
) -> None:
    address = settled(example_tree(400))
    assert browser.get(address).text.count(">Node ") == 150
    assert browser.get(f"{address}?show=nodes").text.count(">Node ") > 300


_JOB = {
    "cost": {"direct_nanodollars": 100},
    "usage": {"completion_tokens": 10},
    "attempts": [
        {"incarnation_id": "inc_a", "machine": "h200", "market": "spot", "worker": "w", "outcome": "lost", "reason": ""}
    ],
}


def _view(*nodes: dict[str, Any], **facts: Any) -> list[dict[str, Any]]:
    tree = {"nodes": [{"parent": -1}, *nodes], "candidates": [], "chosen": None} | facts
    found = {"job_id": "job_1", "growing": False, "strategy": "direct", "tree": tree}
    rows: list[dict[str, Any]] = tree_view(found, _JOB)["steps"][0]["nodes"]
    return rows


def test_a_node_says_its_state_and_what_is_below_it() -> None:
    cut = {"parent": 1, "tokens": 2, "state": "finished", "stop": "length", "text": "a"}
    forced = {"parent": 1, "tokens": 3, "state": "finished", "stop": "inserted", "text": "b", "forced": [[0, 3]]}
    rows = _view({"parent": 0, "tokens": 5, "state": "pruned", "text": "c"}, cut, forced)
    assert [row["state"] for row in rows[1:]] == ["pruned", "cut", "forced"]
    assert [row["below"] for row in rows] == [10, 10, 2, 3]
    assert rows[3]["notes"] == ["forced ×1"]


def test_equal_leaves_are_one_and_a_round_is_numbered() -> None:
    same = [{"parent": 0, "ordinal": ordinal, "tokens": 1, "text": "7"} for ordinal in range(3)]
    rows = _view(*same, rounds=[0, 2])
    assert (rows[1]["times"], rows[2]["twin"], rows[3]["twin"]) == (3, 1, 1)
    assert [row["round"] for row in rows[1:]] == [1, 1, 2]


def test_a_node_names_the_attempts_that_made_it_as_far_as_they_are_known() -> None:
    parts = [{"incarnation_id": "inc_a", "first_node": 1}, {"incarnation_id": "inc_b", "first_node": 2}]
    parts[1]["continued"] = [[1, 40]]
    rows = _view({"parent": 0, "tokens": 90}, {"parent": 1, "tokens": 5}, made_by=parts)
    assert rows[1]["by"] == [{"attempt": 0, "from": 0}, {"attempt": None, "from": 40}]
    assert rows[2]["by"] == [{"attempt": None, "from": 0}]
    assert "by" not in _view({"parent": 0})[1]


def test_a_long_chain_is_a_list_without_recursion() -> None:
    rows = _view(*({"parent": index, "text": str(index)} for index in range(5_000)))
    kinds = [kind for kind, _, _ in outline(rows, 10_000)]
    assert kinds.count("node") == kinds.count("end") == 5_000
    assert kinds.count("open") == kinds.count("close") == 4_999
