"""Candidates that a judge chooses from, in a knockout tournament or all at once."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest

from ponder.domain.strategy import Judging
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.strategies.best_of_n import DECISION, Contest

from ..conftest import attempt, run
from ..judge_engine import JudgeEngine, Reply, finish, judged_by


def contest(
    reply: Reply | str, texts: Sequence[str], *, answers: Sequence[str | None] = (), n: int = 1, max_tokens: int = 512
) -> tuple[Contest, JudgeEngine]:
    search, engine = judged_by(reply)
    return Contest(search, Judging(n=n, max_tokens=max_tokens), "?", texts, answers or [None] * len(texts)), engine


def shown(question: str) -> list[int]:
    """Returns the numbers that the answers in a question consist of."""
    return [int(text) for text in re.findall(r"# Answer \w+\n\n(\d+)", question)]


def highest(question: str, number: int) -> str:
    """Always finds the highest number best."""
    numbers = shown(question)
    place = numbers.index(max(numbers))
    return f"Better: {'AB'[place]}" if "Better" in question else f"Choice: {place + 1}"


@pytest.mark.parametrize("num", range(1, 12))
@pytest.mark.parametrize("n", [1, 2])
def test_whoever_beats_all_others_wins_the_tournament_in_one_match_less_than_there_are_texts(num: int, n: int) -> None:
    texts = [str(number) for number in range(num)]
    random.Random(num).shuffle(texts)
    one, engine = contest(highest, texts, n=n)
    order = finish(engine, one.tournament())
    assert texts[order[0]] == str(num - 1)
    assert sorted(order) == list(range(num))
    assert len(one.matches) == num - 1
    assert len(engine.questions) == n * (num - 1)


def test_whoever_lost_later_is_ranked_higher() -> None:
    one, engine = contest(highest, ["0", "5", "3", "9"])
    assert finish(engine, one.tournament()) == [3, 1, 0, 2]


def test_byes_go_to_the_first_and_everybody_else_plays_at_once() -> None:
    one, engine = contest(highest, list("012345"))
    finish(engine, one.tournament())
    assert [places for places, _ in one.matches] == [[2, 3], [4, 5], [0, 1], [3, 5], [1, 5]]
    assert [shown(question) for question in engine.questions[:2]] == [[2, 3], [4, 5]]


@pytest.mark.parametrize("reply", ["I like both.", "Better: both", ""])
def test_a_judge_that_says_nothing_readable_leaves_the_order_as_it_was(reply: str) -> None:
    for num in (2, 5, 8):
        one, engine = contest(reply, list("01234567"[:num]))
        assert finish(engine, one.tournament()) == list(range(num))
        one, engine = contest(reply, list("01234567"[:num]))
        assert finish(engine, one.genselect()) == list(range(num))


def test_a_judge_that_only_looks_at_the_place_makes_a_tie_which_the_earlier_wins() -> None:
    one, engine = contest("Better: B", list("0123"), n=2)
    assert finish(engine, one.tournament())[0] == 0
    one, engine = contest("Better: B", list("0123"), n=1)
    assert finish(engine, one.tournament())[0] == 3


def test_equal_answers_are_not_compared() -> None:
    one, engine = contest(highest, list("0123"), answers=["4", "4", "4", "5"])
    assert finish(engine, one.tournament())[0] == 3
    assert [shown(question) for question in engine.questions] == [[2, 3], [0, 3]]
    for play in (Contest.tournament, Contest.genselect):
        one, engine = contest(highest, list("0123"), answers=["4"] * 4)
        assert finish(engine, play(one)) == [0, 1, 2, 3]
        assert engine.questions == []


def test_texts_without_an_answer_are_not_equal() -> None:
    one, engine = contest(highest, list("01"))
    assert finish(engine, one.tournament()) == [1, 0]


def test_genselect_asks_once_and_ranks_by_votes() -> None:
    one, engine = contest(lambda question, number: f"Choice: {[3, 2, 3, 1, 7][number]}", list("0123"), n=5)
    assert finish(engine, one.genselect()) == [2, 0, 1, 3]
    assert one.matches == [([0, 1, 2, 3], [1, 1, 2, 0, 1])]
    assert len(set(engine.questions)) == 1


@pytest.mark.parametrize("num", range(2, 10))
def test_a_list_that_does_not_fit_is_judged_in_groups(num: int) -> None:
    texts = [str(number) for number in range(num)]
    random.Random(num).shuffle(texts)
    three, asked = contest(highest, list("012"))
    finish(asked, three.genselect())
    one, engine = contest(highest, texts, max_tokens=40)
    engine.context_length = len(asked.questions[0]) + 40
    order = finish(engine, one.genselect())
    assert texts[order[0]] == str(num - 1)
    assert sorted(order) == list(range(num))
    assert max(len(shown(question)) for question in engine.questions) <= 3


def test_texts_of_which_no_two_fit_keep_their_order() -> None:
    one, engine = contest(highest, ["1", "2", "3"])
    engine.context_length = 700
    assert finish(engine, one.genselect()) == [0, 1, 2]
    assert engine.questions == []


@pytest.mark.parametrize("select", ["tournament", "genselect"])
def test_the_choice_stands_in_the_tree_beside_the_questions(select: str) -> None:
    spec = {"name": "best_of_n", "n": 5, "select": select, "early_stopping": None, "judge": {"max_tokens": 6}}
    num_choices = 0
    for job_seed in range(8):
        one = attempt(SearchLimits(None, None, 40), rng=random.Random(0), job_seed=job_seed)
        ranked = run(one, spec)
        assert ranked is not None
        tree = one.search.tree
        told = tree.decisions[DECISION]
        whole = [candidate.node.index for candidate in ranked if candidate.is_complete and candidate.said.strip()]
        assert (told["by"], told["nodes"]) == (select, whole)
        assert [candidate.is_complete for candidate in ranked] == sorted((c.is_complete for c in ranked), reverse=True)
        asked = sum(node.is_prompt for node in tree.nodes)
        assert asked == len(told["matches"])
        assert one.engine.num_scores == 0
        num_choices += told["nodes"] != sorted(told["nodes"], key=lambda index: tree.nodes[index].address)
    assert num_choices, "the judge never chose anything"


def test_every_round_has_a_choice_of_its_own() -> None:
    spec = {"name": "best_of_n", "n": 3, "select": "tournament", "early_stopping": None, "judge": {"max_tokens": 6}}
    for job_seed in range(20):
        one = attempt(SearchLimits(None, None, 40), rng=random.Random(0), job_seed=job_seed, max_rounds=3)
        run(one, spec)
        names = [DECISION, f"{DECISION}.2", f"{DECISION}.3"][: len(one.search.rounds)]
        assert list(one.search.tree.decisions) == names
