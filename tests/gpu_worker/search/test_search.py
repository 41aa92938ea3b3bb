"""The Search handle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from ponder_worker.search.engine_port import VerifierReply
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search import Search
from ponder_worker.search.tree.node import Node, NodeState

from .conftest import Attempt, attempt, run

UNLIMITED = SearchLimits(None, None, 60)

T = TypeVar("T")


def play(one: Attempt, *counts: int) -> list[list[tuple[int, int]]]:
    """Returns (length, ordinal) of the root's children in the order of delivery, one list for each `generate`."""

    async def collect() -> list[list[tuple[int, int]]]:
        expansions = [one.search.expander.generate(one.search.root, n, one.search.options) for n in counts]

        async def drive() -> None:
            while one.engine.has_work:
                one.engine.step()
                for expansion in list(one.search.expander.blocked):
                    expansion.wake()
                await asyncio.sleep(0)

        driver = asyncio.ensure_future(drive())
        found = [[(len(node.ids), node.ordinal) for node in await expansion.all()] for expansion in expansions]
        await driver
        return found

    return asyncio.run(collect())


@pytest.mark.parametrize("clock", range(20))
def test_completions_come_by_length_and_ordinal_and_never_by_time(clock: int) -> None:
    (found,) = play(attempt(UNLIMITED, rng=random.Random(clock)), 12)
    assert found == sorted(found)
    assert found == play(attempt(UNLIMITED, rng=random.Random(clock + 100)), 12)[0]


def test_asking_twice_for_four_makes_eight() -> None:
    first, second = play(attempt(UNLIMITED, rng=random.Random(0)), 4, 4)
    assert sorted(ordinal for _, ordinal in first) == [0, 1, 2, 3]
    assert sorted(ordinal for _, ordinal in second) == [4, 5, 6, 7]


def test_a_short_sample_is_handed_out_while_longer_ones_still_grow() -> None:
    one = attempt(UNLIMITED, rng=random.Random(0))

    async def first_of_all() -> tuple[int, int]:
        expansion = one.search.expander.generate(one.search.root, 12, one.search.options)
        waiting = asyncio.ensure_future(expansion.__anext__())
        while not waiting.done():
            one.engine.step()
            for blocked in list(one.search.expander.blocked):
                blocked.wake()
            await asyncio.sleep(0)
        return len(waiting.result().ids), len(one.engine.streams)

    length, num_growing = asyncio.run(first_of_all())
    assert num_growing > 0
    assert length < 60


def test_a_sample_that_was_cut_off_is_no_complete_candidate() -> None:
    one = attempt(SearchLimits(None, None, 1), rng=random.Random(0))
    ranked = run(one, {"name": "self_consistency", "n": 6})
    assert ranked is not None
    by_stop = {candidate.node.stop: candidate.is_complete for candidate in ranked}
    assert by_stop == {"length": False, "stop": True} or by_stop == {"length": False}


def test_ending_leaves_half_grown_samples_as_candidates_that_are_not_complete() -> None:
    one = attempt(UNLIMITED, rng=random.Random(0))

    def end(number: int) -> bool:
        if number == 3:
            one.search.end("dollars")
        return True

    ranked = run(one, {"name": "self_consistency", "n": 5, "early_stopping": None}, after_step=end)
    assert ranked is not None
    assert len(ranked) == 5
    cut = [candidate for candidate in ranked if candidate.node.state is NodeState.CANCELLED]
    assert cut
    assert {candidate.node.stop for candidate in cut} == {"dollars"}
    assert not one.engine.streams
    assert one.search.expander.budget.reserved == 0


@pytest.mark.parametrize("number", [1, 2, 4, 7, 12])
@pytest.mark.parametrize(
    "spec",
    [
        {"name": "best_of_n", "n": 6},
        {"name": "self_consistency", "n": 6},
        {"name": "beam_search", "n": 4, "width": 2},
        {"name": "dvts", "n": 4, "width": 2},
        {"name": "rebase", "n": 6},
        {"name": "mcts", "n": 4},
        {"name": "particle_filter", "n": 4},
        {"name": "adaptive", "n": 8},
    ],
    ids=lambda spec: spec["name"],
)
def test_a_search_that_was_told_to_end_asks_for_no_more_scores(spec: dict[str, Any], number: int) -> None:
    one = attempt(UNLIMITED, rng=random.Random(number))
    asked: list[int] = []

    def end(step: int) -> bool:
        if step == number:
            one.search.end("dollars")
            asked.append(one.engine.num_scores)
            assert not one.engine.scores, "what is out is given up"
        return True

    ranked = run(one, spec, after_step=end)
    assert ranked is not None
    if asked:
        assert one.engine.num_scores == asked[0]


def test_the_text_of_a_path_is_the_text_of_its_steps() -> None:
    one = attempt(UNLIMITED, rng=random.Random(0))
    ranked = run(one, {"name": "beam_search", "n": 4, "width": 2})
    assert ranked is not None
    for candidate in ranked:
        ids = one.search.tree.ids_to(candidate.node)[len(one.search.root.ids) :]
        assert candidate.text == one.engine.decode(ids)
        steps = candidate.node.path()
        assert all(one.search.text(step).endswith("\n") for step in steps[:-1]), "the separator is kept"


def test_a_sample_that_says_nothing_has_no_score_and_is_not_the_best() -> None:
    """Its likelihood would be the highest."""
    for job_seed in range(200):
        one = attempt(UNLIMITED, rng=random.Random(0), job_seed=job_seed)
        ranked = run(one, {"name": "best_of_n", "n": 6})
        assert ranked is not None
        empty = [candidate for candidate in ranked if not candidate.text]
        if empty:
            assert {candidate.score for candidate in empty} == {None}
            assert ranked[0].text
            assert ranked[-len(empty) :] == empty
            return
    pytest.fail("no sample of any seed was empty")


def test_direct_returns_its_samples_in_order_of_ordinals() -> None:
    one = attempt(UNLIMITED, rng=random.Random(0), num_choices=5)
    ranked = run(one, {"name": "direct"})
    assert ranked is not None
    assert [candidate.node.ordinal for candidate in ranked if candidate.is_complete] == sorted(
        candidate.node.ordinal for candidate in ranked if candidate.is_complete
    )
    assert len(ranked) == 5


def drive(one: Attempt, play: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Steps the engine until what is played has come to its end."""

    async def live() -> T:
        task = asyncio.ensure_future(play())
        for _ in range(1000):
            await asyncio.sleep(0)
            if task.done():
                break
            one.engine.step()
            for expansion in list(one.search.expander.blocked):
                expansion.wake()
        return await task

    return asyncio.run(live())


def test_a_verdict_is_asked_once_and_stands_in_the_tree() -> None:
    first = attempt(UNLIMITED, rng=random.Random(0))

    async def verify(search: Search) -> list[VerifierReply]:
        candidates = [candidate async for candidate in search.complete(search.root, 2)]
        return [await search.verify(candidate) for candidate in [*candidates, *candidates]]

    verdicts = drive(first, lambda: verify(first.search))
    assert verdicts[:2] == verdicts[2:]
    assert first.engine.num_verified == 2
    first.save()
    second = attempt(UNLIMITED, rng=random.Random(1), deltas=first.deltas)
    assert drive(second, lambda: verify(second.search)) == verdicts
    assert second.engine.num_verified == 0


def test_a_search_that_was_told_to_end_waits_for_no_verdict_and_asks_for_none() -> None:
    one = attempt(UNLIMITED, rng=random.Random(0))

    async def verify() -> list[VerifierReply]:
        candidates = [candidate async for candidate in one.search.complete(one.search.root, 2)]
        one.engine.verifying = Unanswered()  # type: ignore[assignment]
        waiting = asyncio.ensure_future(one.search.verify(candidates[0]))
        await asyncio.sleep(0)
        one.search.end("deadline")
        return [await waiting, await one.search.verify(candidates[1])]

    assert drive(one, verify) == [VerifierReply(False), VerifierReply(False)]
    assert one.engine.num_verified == 1
    assert [node.passed for node in one.search.tree.nodes[1:]] == [None, None], "nobody has said so"


class Unanswered(list[Any]):
    """Questions that nobody ever answers."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def test_what_the_user_says_is_forced_counts_to_the_budget_and_begins_a_new_turn() -> None:
    one = attempt(SearchLimits(50, None, 60), rng=random.Random(3))

    async def answer_back() -> tuple[Node, Node]:
        by_line = replace(one.search.options, separator="\n")
        (leaf,) = await one.search.expander.generate(one.search.root, 1, by_line).all()
        said = await one.search.say(leaf, "No.")
        assert said is not None
        (again,) = await one.search.expander.generate(said, 1, by_line).all()
        return said, again

    said, again = drive(one, answer_back)
    assert said.stop == "forced"
    assert said.forced == ((0, len(said.ids)),)
    assert one.search.candidate(again).text == one.search.text(again)
    assert one.search.expander.budget.used == one.search.tree.num_tokens


def test_the_user_says_nothing_that_the_budget_has_no_room_for() -> None:
    one = attempt(SearchLimits(None, 3, 60), rng=random.Random(3))

    async def answer_back() -> Node | None:
        (leaf,) = await one.search.expander.generate(one.search.root, 1, one.search.options).all()
        return await one.search.say(leaf, "No.")

    assert drive(one, answer_back) is None


def test_a_decision_is_made_once_over_all_attempts() -> None:
    first = attempt(UNLIMITED, rng=random.Random(0))
    assert first.search.decide("arm", lambda: "beam") == "beam"
    first.save()
    second = attempt(UNLIMITED, rng=random.Random(0), deltas=first.deltas)
    assert second.search.decide("arm", lambda: "more samples") == "beam"


def test_the_same_draw_is_the_same_in_every_attempt_and_another_is_another() -> None:
    first, second = (attempt(UNLIMITED, rng=random.Random(clock)).search for clock in (0, 1))
    assert first.random(1).random() == second.random(1).random() != first.random(2).random()
