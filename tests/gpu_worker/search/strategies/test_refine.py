"""Trying again after what the verifier said."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ponder_worker.search.engine_port import VerifierReply
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search_error import NoVerifier

from ..conftest import TURN, Attempt, attempt, run, verdict_of

SPEC = {"name": "refine", "n": 4}


def tried(
    job_seed: int, limits: SearchLimits, verdict: Callable[[str], VerifierReply] = verdict_of
) -> tuple[Attempt, list[str]]:
    """Returns the attempt, and what the user was made to say."""
    one = attempt(limits, rng=random.Random(0), job_seed=job_seed)
    said: list[str] = []
    turn = one.engine.user_turn

    def listen(text: str) -> list[int]:
        said.append(text)
        return turn(text)

    def verify(text: str, answer: str | None, done: Callable[[VerifierReply], None]) -> None:
        one.engine.verifying.append((text, lambda _: done(verdict(text))))

    one.engine.user_turn, one.engine.verify = listen, verify  # type: ignore[method-assign]
    run(one, SPEC)
    return one, said


def test_the_feedback_is_the_next_turn_of_the_same_conversation() -> None:
    one, said = tried(1, SearchLimits(None, None, 1000), lambda text: VerifierReply(False, "Line 2 is no JSON."))
    assert said == ["Line 2 is no JSON.\nPlease try again."] * 3
    assert one.ranked is not None
    last = one.ranked[0].node
    assert [step.stop for step in last.path()] == ["stop", "forced"] * 3 + ["stop"]
    assert len(one.ranked) == 4


def test_a_verifier_that_does_not_say_what_is_wrong_is_spoken_for() -> None:
    _, said = tried(1, SearchLimits(None, None, 1000), lambda text: VerifierReply(False))
    assert said[0] == "That answer is not right.\nPlease try again."


def test_it_ends_with_the_first_answer_that_passes_and_chooses_it() -> None:
    lengths = set()
    for job_seed in range(60):
        one, said = tried(job_seed, SearchLimits(None, None, 1000))
        assert one.ranked is not None
        verdicts = [candidate.node.passed for candidate in one.ranked]
        assert len(said) == min(len(verdicts), 4) - 1
        assert sum(map(bool, verdicts)) == bool(verdicts[0])
        if not verdicts[0]:
            assert len(verdicts) == 4
        lengths.add(len(verdicts))
    assert lengths == {1, 2, 3, 4}


def test_where_nothing_passes_the_last_whole_try_is_the_answer() -> None:
    one, _ = tried(1, SearchLimits(None, None, 1000), lambda text: VerifierReply(False))
    assert one.ranked is not None
    starts = [candidate.node.start for candidate in one.ranked]
    assert starts == sorted(starts, reverse=True)


def test_the_next_turn_is_counted_and_never_begun_without_room() -> None:
    for tokens in range(1, 60):
        one, _ = tried(3, SearchLimits(tokens, None, 1000), lambda text: VerifierReply(False))
        tree = one.search.tree
        assert tree.num_tokens == one.search.expander.budget.used <= tokens
        turns = [node for node in tree.nodes if TURN in node.ids]
        assert all(turn.stop == "forced" for turn in turns)
        assert len(turns) < 4


def test_where_nobody_can_judge_the_try_that_is_there_is_the_answer() -> None:
    one, said = tried(1, SearchLimits(None, None, 1000), lambda text: VerifierReply(None, "this worker runs no code"))
    assert said == []
    assert one.ranked is not None
    assert [candidate.node.passed for candidate in one.ranked] == [None]


def test_without_a_verifier_that_may_drive_it_it_fails() -> None:
    one = attempt(SearchLimits(None, None, 60), rng=random.Random(0))

    def verify(*_: Any) -> None:
        raise NoVerifier("no verifier may drive this job")

    one.engine.verify = verify  # type: ignore[method-assign]
    with pytest.raises(NoVerifier):
        run(one, SPEC)
