"""Another round of the same strategy where the verifier says no."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ponder_worker.answers.equality import canonical
from ponder_worker.search.engine_port import VerifierReply
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.ranking import rank
from ponder_worker.search.search_error import NoVerifier

from ..conftest import Attempt, attempt, run
from ..test_resume import killed_everywhere

UNLIMITED = SearchLimits(None, None, 60)
VOTE = {"name": "self_consistency", "n": 3, "early_stopping": None}
SPECS: list[dict[str, Any]] = [
    {"name": "direct"},
    VOTE,
    {"name": "best_of_n", "n": 3},
    {"name": "dvts", "n": 4, "width": 2, "max_rounds": 3},
    {"name": "particle_filter", "n": 3, "max_rounds": 3},
    {"name": "refine", "n": 2},
]


def judged(
    spec: dict[str, Any],
    limits: SearchLimits,
    passes: Callable[[str | None], bool | None],
    *,
    max_rounds: int = 3,
    job_seed: int = 0,
) -> Attempt:
    one = attempt(limits, rng=random.Random(0), job_seed=job_seed, max_rounds=max_rounds)

    def verify(text: str, answer: str | None, done: Callable[[VerifierReply], None]) -> None:
        one.engine.num_verified += 1
        one.engine.verifying.append((text, lambda _: done(VerifierReply(passes(answer)))))

    one.engine.verify = verify  # type: ignore[method-assign]
    run(one, spec)
    return one


def num_samples(one: Attempt) -> int:
    return sum(node.parent is one.search.root for node in one.search.tree.nodes)


def test_while_its_choice_fails_a_job_begins_anew_under_the_same_root() -> None:
    one = judged(VOTE, UNLIMITED, lambda answer: False)
    assert num_samples(one) == 3 * 3
    assert one.ranked is not None
    assert len(one.ranked) == 9
    assert one.engine.num_verified == 2, "nothing follows from what the last round has chosen"


def test_a_choice_that_passes_is_the_answer_and_ends_it() -> None:
    assert num_samples(judged(VOTE, UNLIMITED, lambda answer: True)) == 3
    num_late = 0
    for job_seed in range(40):
        one = judged(VOTE, UNLIMITED, lambda answer: answer is not None and len(answer) == 1, job_seed=job_seed)
        assert one.ranked is not None
        passed = [candidate for candidate in one.ranked if candidate.node.passed]
        if passed and num_samples(one) > 3:
            num_late += 1
            assert one.ranked[0] is passed[0]
    assert num_late > 3


def test_an_answer_that_is_known_to_be_wrong_comes_after_those_that_nobody_has_asked_about() -> None:
    num_demoted = 0
    for job_seed in range(40):
        one = judged(VOTE, UNLIMITED, lambda answer: False, max_rounds=2, job_seed=job_seed)
        assert one.ranked is not None
        whole = [candidate for candidate in one.ranked if candidate.is_complete]
        wrong = {canonical(c.answer) for c in whole if c.node.passed is False and c.answer is not None}
        places = [candidate.answer is not None and canonical(candidate.answer) in wrong for candidate in whole]
        assert places == sorted(places)
        by_votes = rank(whole, by="majority")[0].answer if whole else None
        num_demoted += len(set(places)) == 2 and by_votes is not None and canonical(by_votes) in wrong
    assert num_demoted > 3, "the votes alone would have put no wrong answer first, so nothing was shown"


def test_without_more_rounds_nobody_is_asked() -> None:
    one = judged(VOTE, UNLIMITED, lambda answer: False, max_rounds=1)
    assert one.engine.num_verified == 0
    assert num_samples(one) == 3


def test_all_rounds_together_stay_inside_the_budget() -> None:
    for spec in SPECS:
        num_later = 0
        for tokens in (*range(1, 80, 3), 120, 180, 260):
            one = judged(spec, SearchLimits(tokens, None, 60), lambda answer: False, max_rounds=5)
            assert one.search.tree.num_tokens <= tokens
            alone = judged(spec, SearchLimits(tokens, None, 60), lambda answer: False, max_rounds=1)
            num_later += one.search.tree.num_tokens > alone.search.tree.num_tokens
        assert num_later, "no budget had room for a second round"


def test_a_verifier_that_may_not_be_asked_fails_the_job() -> None:
    def refuse(answer: str | None) -> bool:
        raise NoVerifier("no")

    with pytest.raises(NoVerifier):
        judged(VOTE, UNLIMITED, refuse)


def test_where_nobody_can_judge_its_choice_the_first_round_is_the_last() -> None:
    one = judged(VOTE, UNLIMITED, lambda answer: None)
    assert num_samples(one) == 3
    assert one.ranked is not None
    assert len(one.ranked) == 3
    assert all(candidate.node.passed is None for candidate in one.ranked)


@pytest.mark.parametrize("when", ["after_step", "after_turn"])
@pytest.mark.parametrize("limits", [UNLIMITED, SearchLimits(60, None, 40)], ids=["unlimited", "tight"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_killed_at_any_await_of_any_round_it_ends_the_same(
    spec: dict[str, Any], limits: SearchLimits, when: str
) -> None:
    killed_everywhere(spec, limits, when, max_rounds=3)


def test_the_beginning_of_each_round_is_noted_by_the_ordinal_of_its_first_sample() -> None:
    assert judged(VOTE, UNLIMITED, lambda answer: False).search.rounds == [0, 3, 6]
    assert judged(VOTE, UNLIMITED, lambda answer: True).search.rounds == [0]
    refined = judged({"name": "refine", "n": 2}, UNLIMITED, lambda answer: False, max_rounds=1)
    assert refined.search.rounds in ([0], [0, 1])
