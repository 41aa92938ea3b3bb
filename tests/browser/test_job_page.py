"""The page of a job, and its search tree as a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from example_tree import example_tree
from hostile_text import HOSTILE
from playwright.sync_api import Page, expect
from visit import SIZES, Visit
from world import World

from ponder.jobs.tick import Usage

Take = Callable[[Page, str], Path]


def _settled(world: World, tree: dict[str, Any], **changes: Any) -> str:
    """Settles a job with a tree, which two incarnations made if it is large enough. Returns the job's id."""
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    batch = world.batch(1, tenant=home.id, strategy="beam_search", level="4")
    request = {"messages": changes.pop("messages", _MESSAGES), "reference": "7", "verifier": {"name": "math"}}
    values = {"id": batch, "request": json.dumps(request), "custom_id": changes.pop("custom_id", "apples-4")}
    world.sql(
        "UPDATE jobs SET request = request || CAST(:request AS jsonb), custom_id = :custom_id WHERE batch_id = :id",
        **values,
    )
    first = world.worker(market="spot")
    [job] = world.claim_all(first)
    rows = [{"node": 0, "ids": [1, 2]}]
    for index, node in enumerate(tree["nodes"][1:9], start=1):
        rows.append({"node": index, "ids": [5] * node["tokens"], "parent": node["parent"], "ordinal": node["ordinal"]})
    world.tick(first, deltas={job: [{"nodes": rows}]}, work=world.work(job))
    world.release(first, "preempted by aws notice, 118 s before")
    world.sql("UPDATE incarnations SET state = 'ended', end_reason = 'preempted by aws notice, 118 s before',"
              " ended_at = (SELECT max(ended_at) FROM attempts) WHERE id = :id", id=first)  # fmt: skip
    second = world.worker(machine="h100", market="on_demand")
    world.claim_all(second)
    usage = Usage(prompt_tokens=31, completion_tokens=sum(node["tokens"] for node in tree["nodes"]))
    settlement = replace(world.passed(job), tree=tree, usage=usage, **changes)
    world.tick(second, settled=[settlement], work=world.work(job))
    return f"job_{job}"


_MESSAGES = [
    {"role": "system", "content": "Think step by step, and end with the answer in a box."},
    {"role": "user", "content": "Ann buys apples at 3 dollars each for 27 dollars. Bob eats two. How many are left?"},
]


def _open(page: Page, job: str, *, of: str = "") -> None:
    page.goto(f"/jobs/{job}{of}")
    expect(page.locator("#tree")).to_be_visible()
    page.wait_for_selector(".tree-picture [data-node]")


def test_a_node_can_be_chosen_with_mouse_and_keyboard(visit: Visit, world: World) -> None:
    job = _settled(world, example_tree(14))
    page = visit.page()
    _open(page, job)
    picture, details = page.get_by_role("application", name="Search tree"), page.locator("#tree-details")
    page.locator('[data-node="1"]').click()
    expect(details.get_by_role("heading", name="Node 1", exact=True)).to_be_visible()
    expect(details).to_contain_text("attempt 1: h200, spot, preempted by aws notice, 118 s before")
    expect(details).to_contain_text("kept from another attempt")
    assert page.url.endswith("#node-1")

    picture.press("Home")
    picture.press("ArrowRight")
    picture.press("ArrowDown")
    expect(details.get_by_role("heading", name="Node 2", exact=True)).to_be_visible()
    picture.press("ArrowLeft")
    expect(details.get_by_role("heading", name="The question")).to_be_visible()
    picture.press("c")
    expect(details).to_contain_text("leads to the answer")
    expect(details).to_contain_text("attempt 2: h100, on demand")


def test_folding_hides_what_is_below(visit: Visit, world: World) -> None:
    job = _settled(world, example_tree(40))
    page = visit.page()
    _open(page, job)
    picture = page.get_by_role("application", name="Search tree")
    picture.press("Home")
    picture.press("Enter")
    expect(page.locator(".tree-picture [data-node]")).to_have_count(1)
    picture.press("ArrowRight")
    expect(page.locator('[data-node="6"]')).to_be_attached()
    page.get_by_role("button", name="Fold all", exact=True).click()
    expect(page.locator('[data-node="6"]')).not_to_be_attached()
    expect(page.locator('[data-node="1"] .fold')).to_contain_text("+")
    page.get_by_role("button", name="Chosen path").click()
    expect(page.locator("#tree-details")).to_contain_text("leads to the answer")


def test_a_selection_that_is_folded_away_moves_to_what_is_still_there(visit: Visit, world: World) -> None:
    tree = example_tree(40)
    deep = max(range(40), key=lambda index: tree["nodes"][index].get("parent", -1))
    job = _settled(world, tree)
    page = visit.page()
    _open(page, job, of=f"#node-{deep}")
    page.get_by_role("button", name="Fold all", exact=True).click()
    selected = page.locator(".tree-picture .selected")
    expect(selected).to_have_count(1)
    number = selected.get_attribute("data-node")
    expect(page.locator("#tree-details").get_by_role("heading", name=f"Node {number}", exact=True)).to_be_visible()
    assert page.url.endswith(f"#node-{number}")
    picture = page.get_by_role("application", name="Search tree")
    for key in ("ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "Enter", "Enter", "c"):
        picture.press(key)
    expect(page.locator("#tree-details")).to_contain_text("leads to the answer")


def test_a_small_tree_opens_whole_and_a_large_one_where_its_path_begins(visit: Visit, world: World) -> None:
    page = visit.page()
    for num_nodes, is_whole in ((6, True), (400, False)):
        tree = example_tree(num_nodes)
        for index, node in enumerate(tree["nodes"][1:], start=1):
            node["text"] = f"step {index}"
        _open(page, _settled(world, tree))
        inside = page.evaluate(_INSIDE)
        assert 320 <= inside["height"] <= 562, inside
        assert inside["best"] >= 1, inside
        assert (inside["num"] == num_nodes) == is_whole, inside


_INSIDE = """() => {
  const frame = document.querySelector(".tree-frame").getBoundingClientRect();
  const isIn = ({ left, right, top, bottom }) =>
    left >= frame.left && right <= frame.right && top >= frame.top && bottom <= frame.bottom;
  const drawn = [...document.querySelectorAll(".tree-picture .node")];
  const inside = drawn.filter((one) => isIn(one.getBoundingClientRect()));
  return { height: frame.height, num: inside.length, best: inside.filter((one) => one.matches(".best")).length };
}"""


def test_changes_that_come_at_once_are_fetched_together(visit: Visit, world: World) -> None:
    job = _settled(world, example_tree(12))
    page = visit.page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("tree.json") else None)
    _open(page, job)
    page.wait_for_load_state("networkidle")
    asked.clear()
    page.evaluate('for (let n = 0; n < 9; n += 1) document.dispatchEvent(new CustomEvent("ponder:changed"))')
    page.wait_for_timeout(2_000)
    assert 1 <= len(asked) <= 3  # the one under way, one for all the others, and perhaps one of the page itself


def test_scores_are_coloured_by_their_order_and_never_negative_zero(visit: Visit, world: World) -> None:
    tree = example_tree(9, width=8)
    scores = [-0.001, 0.9, 0.9001, 0.9002, 0.9003, 0.9004, 0.9005, 0.9006]
    for node, score in zip(tree["nodes"][1:], scores, strict=True):
        node |= {"score": score, "text": f"a step worth {round(1e4 * score)}"}
    job = _settled(world, tree)
    page = visit.page()
    _open(page, job)
    expect(page.locator('[data-node="1"] .head')).to_contain_text(" 0.00 ")
    page.get_by_role("combobox", name="Colour by").select_option("score")
    colours = {page.locator(f'[data-node="{index}"]').get_attribute("class") for index in range(1, 9)}
    assert len({re.search(r"score-\d", colour or "")[0] for colour in colours}) == 7  # type: ignore[index]
    expect(page.locator(".tree-legend")).to_contain_text("0.00")
    assert "-0.00" not in page.locator("#tree").inner_text()


def test_a_permalink_opens_a_node(visit: Visit, world: World) -> None:
    job = _settled(world, example_tree(40))
    page = visit.page()
    _open(page, job, of="#node-12")
    expect(page.get_by_role("heading", name="Node 12", exact=True)).to_be_visible()
    expect(page.locator('[data-node="12"].selected')).to_be_visible()


def test_the_replay_shows_nodes_in_the_order_in_which_they_were_begun(visit: Visit, world: World) -> None:
    job = _settled(world, example_tree(12))
    page = visit.page()
    _open(page, job)
    page.get_by_role("slider").fill("3")
    expect(page.locator(".tree-picture [data-node]")).to_have_count(4)
    page.get_by_role("button", name="One node on").click()
    expect(page.get_by_text("4 of 11")).to_be_visible()
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("11 of 11")).to_be_visible()


def test_the_tree_can_be_taken_away_as_svg_and_json(visit: Visit, world: World, tmp_path: Path) -> None:
    tree = example_tree(40)
    tree["nodes"][1]["text"] = "a bell \x07, an escape \x1b[31m and half a character \udcff\uffff"
    job = _settled(world, tree)
    page = visit.page()
    _open(page, job)
    with page.expect_download() as saved:
        page.get_by_role("button", name="SVG").click()
    path = tmp_path / "tree.svg"
    saved.value.save_as(path)
    picture = path.read_text()
    ElementTree.fromstring(picture)
    assert "var(" not in picture
    assert picture.count("data-node=") > 30
    assert re.search(r'class="stripe"[^>]*fill="rgb\(', picture)
    with page.expect_download() as saved:
        page.get_by_role("link", name="JSON").click()
    document = json.loads(Path(saved.value.path()).read_text())
    assert len(document["tree"]["nodes"]) == 40


def test_a_running_tree_grows_without_losing_zoom_folds_and_selection(visit: Visit, world: World) -> None:
    [home] = world.sql("SELECT id FROM tenants WHERE name = 'home'")
    world.batch(1, tenant=home.id, strategy="best_of_n")
    worker = world.worker()
    [job] = world.claim_all(worker)
    page = visit.page()
    page.goto(f"/jobs/job_{job}")
    expect(page.get_by_text("Nothing has been generated yet")).to_be_visible()
    begun = {"ids": [3, 4], "parent": 0}
    rows = [{"node": 0, "ids": [1]}, {"node": 1, "ordinal": 0, **begun}, {"node": 2, "ordinal": 1, **begun}]
    world.tick(worker, deltas={job: [{"nodes": rows}]})
    expect(page.locator('[data-node="2"]')).to_be_visible()
    page.locator('[data-node="1"]').click()
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator(".tree-picture > g")).to_have_attribute("transform", re.compile(r"scale\(1\.3\)"))  # drawn
    zoomed = page.locator(".tree-picture > g").get_attribute("transform")
    more = [{"node": 3, "ordinal": 2, **begun}, {"node": 1, "state": "finished", "stop": "stop", "text": "= 2"}]
    world.tick(worker, deltas={job: [{"nodes": more}]})
    expect(page.locator('[data-node="3"]')).to_be_attached()
    expect(page.locator("#tree-details pre")).to_have_text("= 2")
    expect(page.locator('[data-node="1"].selected')).to_be_visible()
    assert page.locator(".tree-picture > g").get_attribute("transform") == zoomed


def test_hostile_texts_are_shown_as_they_are(visit: Visit, world: World) -> None:
    tree = example_tree(len(HOSTILE) + 1, width=len(HOSTILE), texts=("x",))
    for node, text in zip(tree["nodes"][1:], HOSTILE, strict=True):
        node["text"] = text
    tree["candidates"][0]["answer"] = HOSTILE[0]
    messages = [{"role": "user", "content": "\n".join(HOSTILE)}]
    job = _settled(world, tree, messages=messages, custom_id=HOSTILE[1], answer=HOSTILE[0])
    page = visit.page()
    _open(page, job)
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE[1])
    for index, text in enumerate(HOSTILE, start=1):
        page.goto(f"/jobs/{job}#node-{index}")
        expect(page.locator("#tree-details pre")).to_have_text(text, use_inner_text=False)
    page.locator("#tree-text summary").click()
    expect(page.locator(".outline")).to_contain_text(HOSTILE[5])


def test_a_text_of_a_hundred_thousand_characters_is_cut_until_asked_for(visit: Visit, world: World) -> None:
    tree = example_tree(10)
    tree["nodes"][1]["text"] = "long " * 20_000
    job = _settled(world, tree, messages=[{"role": "user", "content": "why? " * 20_000}])
    page = visit.page()
    _open(page, job, of="#node-1")
    assert len(page.content()) < 60_000
    more = page.get_by_role("button", name="Show all 100,000 characters")
    more.click()
    expect(more).to_have_count(0)
    assert page.evaluate("document.querySelector('#tree-details pre').textContent.length") == 100_000


def test_two_thousand_nodes_stay_smooth(visit: Visit, world: World) -> None:
    job = _settled(world, example_tree(2_001))
    page = visit.page()
    _open(page, job)
    frames = page.evaluate(_FRAMES)
    print("2,000 nodes: ms of scripts, median and 95th percentile of frames:", frames)
    assert frames["near"][0] < 30
    assert frames["far"][0] < 100
    assert frames["zoom"][0] < 100


_FRAMES = """async () => {
  const frame = document.querySelector(".tree-frame");
  const box = frame.getBoundingClientRect();
  frame.setPointerCapture = () => {};
  const told = (kind, x, y) =>
    frame.dispatchEvent(new PointerEvent(kind, {pointerId: 1, button: 0, clientX: x, clientY: y, bubbles: true}));
  const median = (list, share) => list.sort((a, b) => a - b)[Math.floor(list.length * share)];
  const measure = async (act) => {
    const times = [], works = [];
    let last = await new Promise(requestAnimationFrame);
    for (let round = 0; round < 60; round += 1) {
      const began = performance.now();
      act(round);
      const acted = performance.now() - began;
      const drawn = await new Promise((done) => requestAnimationFrame((at) => done([at, performance.now()])));
      works.push(acted + drawn[1] - drawn[0]);
      times.push(drawn[0] - last);
      last = drawn[0];
    }
    return [median(works, 0.5), median(times, 0.5), median(times, 0.95)].map((one) => Math.round(one * 10) / 10);
  };
  const button = (name) => [...document.querySelectorAll("#tree button")].find((one) => one.textContent === name);
  const at = {clientX: box.left + 300, clientY: box.top + 200, bubbles: true, cancelable: true, ctrlKey: true};
  const found = {};
  found.idle = await measure(() => {});
  found.near = await (async () => {
    told("pointerdown", 0, 0);
    const taken = await measure((round) => told("pointermove", 0, (round % 30) * -20));
    told("pointerup", 0, 0);
    return taken;
  })();
  button("Fit").click();
  told("pointerdown", 0, 0);
  found.far = await measure((round) => told("pointermove", 0, (round % 10) * -5));
  told("pointerup", 0, 0);
  found.zoom = await measure((round) =>
    frame.dispatchEvent(new WheelEvent("wheel", {deltaY: round < 30 ? -12 : 12, ...at})));
  frame.focus();
  found.fold = await measure(() => frame.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true})));
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_job_has_no_barrier(
    visit: Visit, world: World, has_no_barrier: Callable[[Page], None], look: Take, scheme: str
) -> None:
    job = _settled(world, example_tree(40))
    for size in SIZES:
        page = visit.page(size=size, scheme=scheme)
        _open(page, job)
        page.get_by_role("button", name="Chosen path").click()
        look(page, f"job-{size}-{scheme}")
        has_no_barrier(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
