"""Thinking ends when the answer has settled."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.node import Node

from ..conftest import CLOSE, CLOSING, END, OPEN, PROMPT, THOUGHT, Attempt, attempt, run

SPEC = {"name": "answer_probing", "every": 4, "num_equal": 2, "probe": "So:", "probe_tokens": 3, "answer": "So:"}
LONG = SearchLimits(None, None, 200)


def _played(
    job_seed: int, limits: SearchLimits = LONG, thought: Thought | None = None, num_choices: int = 1, **spec: Any
) -> Attempt:
    one = attempt(limits, rng=random.Random(job_seed), job_seed=job_seed, thought=thought, num_choices=num_choices)
    run(one, SPEC | spec)
    return one


def _says(one: Attempt, say: Callable[[int, int], int]) -> None:
    """Makes the engine say what a function of (position in the stream, last token) returns."""
    generate = one.engine.generate

    def generate_so(request: Any, done: Any) -> Any:
        stream = generate(request, done)
        stream.draw = lambda seed, position: say(position - request.start, stream.tokens[-1])
        return stream

    one.engine.generate = generate_so  # type: ignore[method-assign]


def _probes(one: Attempt) -> list[Node]:
    return [node for node in one.search.tree.nodes[1:] if node.parent is not None and node.parent.stop == "inserted"]


@pytest.mark.parametrize("thought", [None, THOUGHT], ids=["no marks", "marks"])
def test_a_thought_whose_answer_stays_the_same_is_closed_and_answered(thought: Thought | None) -> None:
    one = attempt(LONG, rng=random.Random(0), thought=thought)

    def say(place: int, last: int) -> int:
        if last == PROMPT[0] and thought is not None:
            return OPEN
        if last in (CLOSE, CLOSING):
            return 2  # the answer
        return END if last == 2 else 5  # after the answer it ends, and otherwise it thinks on

    _says(one, say)
    ranked = run(one, SPEC)
    assert ranked
    assert ranked[0].is_complete
    assert ranked[0].answer == "2"
    pieces = [node for node in ranked[0].node.path() if node.stop == "length"]
    assert [len(piece.ids) for piece in pieces] == [4, 4]
    assert len(_probes(one)) == 3, "two probes, and the answer"
    assert one.search.expander.budget.used == one.search.tree.num_tokens


def test_a_probe_is_left_out_of_the_text_that_goes_on() -> None:
    for job_seed in range(20):
        one = _played(job_seed)
        for node in one.search.tree.nodes[1:]:
            path = node.path()
            inserted = [step for step in path if step.stop == "inserted"]
            assert len(inserted) <= 1
            assert not inserted or path.index(inserted[0]) >= len(path) - 2, "nothing but an answer is below it"


@pytest.mark.parametrize("thought", [None, THOUGHT], ids=["no marks", "marks"])
@pytest.mark.parametrize("limits", [SearchLimits(60, None, 40), SearchLimits(40, 30, 40), SearchLimits(None, None, 3)])
def test_the_budget_is_a_wall_for_probes_too(limits: SearchLimits, thought: Thought | None) -> None:
    for job_seed in range(30):
        one = _played(job_seed, limits, thought)
        assert limits.tokens is None or one.search.tree.num_tokens <= limits.tokens
        assert one.search.expander.budget.reserved == 0
        assert one.ranked


def test_a_thought_is_closed_at_its_limit_even_if_its_answer_still_changes() -> None:
    limits = SearchLimits(None, None, 200, thinking_tokens=10)
    for job_seed in range(30):
        one = _played(job_seed, limits, THOUGHT, num_equal=64)
        (sample,) = one.ranked or ()
        ids = [token for step in sample.node.path() for token in step.ids]
        assert THOUGHT.measure(PROMPT, ids)[0] <= 10 + len(THOUGHT.closing_ids)


def test_every_choice_is_a_sample_of_its_own() -> None:
    one = _played(3, num_choices=3)
    assert len(one.ranked or ()) == 3
    assert len({candidate.node.path()[0] for candidate in one.ranked or ()}) == 3
