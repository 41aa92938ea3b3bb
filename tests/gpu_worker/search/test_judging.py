"""What a judge is asked, and how its replies are read."""

from __future__ import annotations

import pytest

from ponder.domain.strategy import AcceptByJudge, Judging
from ponder.domain.verifier import Judge
from ponder_worker.search import judging
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.judging import assess, choose, compare, decide

from .conftest import THOUGHT
from .judge_engine import finish, judged_by

ONE = AcceptByJudge()


@pytest.mark.parametrize(
    ("reply", "votes"),
    [
        ("Verdict: correct", [1, 0, 0]),
        ("It holds.\nVerdict: wrong", [0, 1, 0]),
        ("Verdict: incorrect.", [0, 1, 0]),
        ("**Verdict:** Correct", [1, 0, 0]),
        ("**Verdict**: **wrong**", [0, 1, 0]),
        ("verdict: `correct`\n\nI hope this helps.", [1, 0, 0]),
        ("Verdict:\ncorrect", [1, 0, 0]),
        (r"Verdict: \boxed{\text{wrong}}", [0, 1, 0]),
        ("Verdict: correct? No, 2 + 2 is 4.\nVerdict: wrong", [0, 1, 0]),
        ("The answer says `Verdict: correct`, but I say so:\nVerdict: wrong", [0, 1, 0]),
        ("Verdict: correct\nNo. Verdict: I cannot say", [0, 0, 1]),
        ("Verdict: correct or Verdict: wrong", [0, 0, 1]),
        ("`Verdict: correct` or `Verdict: wrong`.", [0, 0, 1]),
        ("Verdict: correct/wrong", [0, 0, 1]),
        ("Verdict: not correct", [0, 0, 1]),
        ("Verdict: correctly solved", [0, 0, 1]),
        ("It is correct.", [0, 0, 1]),
        ("", [0, 0, 1]),
    ],
)
def test_only_the_last_mark_of_a_reply_is_a_verdict(reply: str, votes: list[int]) -> None:
    search, engine = judged_by(reply)
    assert finish(engine, assess(search, ONE, "2 + 2?", "4")) == votes


@pytest.mark.parametrize(
    ("reply", "votes"),
    [
        ("Better: A", [1, 0, 0]),
        ("**Better: B**", [0, 1, 0]),
        ("Better: answer B.", [0, 1, 0]),
        ("Better: A or B", [0, 0, 1]),
        ("Better: Both", [0, 0, 1]),
        ("Better: a careful look shows that B is.", [0, 0, 1]),
        ("A is better.", [0, 0, 1]),
    ],
)
def test_a_pair_is_compared(reply: str, votes: list[int]) -> None:
    search, engine = judged_by(reply)
    assert finish(engine, compare(search, Judging(), "2 + 2?", [("4", "5")])) == [votes]


@pytest.mark.parametrize(
    ("reply", "votes"),
    [
        ("Choice: 1", [1, 0, 0, 0]),
        ("Choice: **Answer 3**", [0, 0, 1, 0]),
        ("Choice: #2", [0, 1, 0, 0]),
        ("Choice: 4", [0, 0, 0, 1]),
        ("Choice: 0", [0, 0, 0, 1]),
        ("Choice: 12345", [0, 0, 0, 1]),
        ("Choice: 1.5", [0, 0, 0, 1]),
        ("Choice: 1 or 2", [0, 0, 0, 1]),
        ("Choice: N", [0, 0, 0, 1]),
    ],
)
def test_one_of_several_is_chosen(reply: str, votes: list[int]) -> None:
    search, engine = judged_by(reply)
    assert finish(engine, choose(search, Judging(), "2 + 2?", [["4", "5", "6"]])) == [votes]


@pytest.mark.parametrize("text", ["{problem} {answer} {answers} {reference}", "Verdict: correct", "\\1 {0} {} %s"])
def test_texts_stand_in_the_question_as_they_are_and_decide_nothing(text: str) -> None:
    search, engine = judged_by("I cannot say.")
    assert finish(engine, assess(search, ONE, text, text)) == [0, 0, 1]
    assert finish(engine, compare(search, Judging(), text, [(text, text)])) == [[0, 0, 1]]
    assert [question.count(text) for question in engine.questions] == [2 + ("Verdict" in text), 3]


def test_a_question_of_ones_own_is_asked_and_the_judge_is_told_how_to_reply() -> None:
    search, engine = judged_by("Verdict: correct")
    rule = AcceptByJudge(template="Is {answer} polite? {Braces} {1}")
    finish(engine, assess(search, rule, "Greet me.", "Hi"))
    (question,) = engine.questions
    assert question.startswith("Is Hi polite? {Braces} {1}\n\n")
    assert "`Verdict: correct` or `Verdict: wrong`" in question


def test_the_reference_is_shown_only_to_a_verifier_that_asks_for_it() -> None:
    for use_reference in (False, True):
        search, engine = judged_by("Verdict: correct")
        judge = Judge(use_reference=use_reference)
        finish(engine, decide(search, judge, "2 + 2?", "4", "it is four"))
        assert ("it is four" in engine.questions[0]) == use_reference


def test_half_of_the_replies_see_a_pair_in_the_other_order_so_that_a_place_decides_nothing() -> None:
    search, engine = judged_by("Better: A")
    assert finish(engine, compare(search, Judging(n=4), "?", [("x", "y")])) == [[2, 2, 0]]
    assert len(set(engine.questions)) == 2
    search, engine = judged_by(lambda question, number: "Better: " + "AB"[question.index("4!") > question.index("no")])
    assert finish(engine, compare(search, Judging(n=3), "?", [("no", "4!"), ("4!", "no")])) == [[0, 3, 0], [3, 0, 0]]


def test_a_single_reply_is_greedy_and_several_are_not() -> None:
    for n in (1, 3):
        search, engine = judged_by("Verdict: correct")
        finish(engine, assess(search, AcceptByJudge(n=n), "?", "4"))
        assert [request.is_greedy for request in engine.requests] == [n == 1] * n
        assert len({request.seed for request in engine.requests}) == n


def test_a_question_that_does_not_fit_is_not_asked() -> None:
    search, engine = judged_by("Choice: 1")
    engine.context_length = 1500
    assert finish(engine, choose(search, Judging(), "?", [["x" * 1500, "y"], ["x", "y"]])) == [None, [1, 0, 0]]
    assert finish(engine, assess(search, ONE, "?", "x" * 1500)) == [0, 0, 0]
    assert len(engine.questions) == 1


def test_in_a_short_context_a_question_leaves_room_for_a_shorter_reply() -> None:
    search, engine = judged_by("Verdict: correct")
    engine.context_length = 2 * Judging().max_tokens
    assert finish(engine, assess(search, AcceptByJudge(max_tokens=engine.context_length), "?", "4")) == [1, 0, 0]


def test_a_judge_that_thinks_is_read_after_its_thought() -> None:
    search, engine = judged_by("<Verdict: wrong>Verdict: correct", thought=THOUGHT)
    marks = {1000 + ord("<"): THOUGHT.open_ids[0], 1000 + ord(">"): THOUGHT.close_ids[0]}
    generate = engine.generate

    def thinking(request, done):  # type: ignore[no-untyped-def]
        stream = generate(request, done)
        draw = stream.draw
        stream.draw = lambda seed, position: marks.get(draw(seed, position), draw(seed, position))
        return stream

    engine.generate = thinking  # type: ignore[method-assign]
    assert finish(engine, assess(search, ONE, "?", "4")) == [1, 0, 0]
    assert search.num_thinking_tokens == 0, "it did not think about the problem"


def test_a_reply_that_was_cut_off_counts_up_to_its_last_whole_line() -> None:
    for reply, votes in [("Verdict: correct", [0, 0, 1]), ("Verdict: correct\nFor one", [1, 0, 0])]:
        search, engine = judged_by(reply)
        assert finish(engine, assess(search, AcceptByJudge(max_tokens=len(reply)), "?", "4")) == votes


def test_without_room_in_the_budget_nothing_is_asked_and_what_was_made_counts_as_the_jobs() -> None:
    limits = SearchLimits(60, None, 40)
    rule = AcceptByJudge(n=3, max_tokens=20)
    search, engine = judged_by("Verdict: correct", limits=limits)
    assert finish(engine, assess(search, rule, "?", "4")) == [3, 0, 0], "each gives back what it did not need"
    tree = search.tree
    assert tree.num_tokens == tree.num_judge_tokens == search.expander.budget.used == 3 * 17
    assert finish(engine, assess(search, rule, "?", "4")) == [0, 0, 0]


def test_the_verdict_stands_in_the_tree_and_is_asked_for_once() -> None:
    for reply, passed in [("Verdict: correct", True), ("Verdict: wrong", False), ("?", None)]:
        search, engine = judged_by(reply)
        for _ in range(2):
            finish(engine, decide(search, Judge(), "2 + 2?", "4", None))
        told = search.tree.decisions[judging.DECISION]
        assert told["passed"] is passed
        assert len(engine.questions) == 1


def test_an_answer_without_text_is_wrong_without_a_question() -> None:
    search, engine = judged_by("Verdict: correct")
    finish(engine, decide(search, Judge(), "2 + 2?", " ", None))
    assert search.tree.decisions[judging.DECISION] == {"passed": False, "votes": [0, 0, 0]}
    assert engine.questions == []


def test_equal_votes_are_no_verdict() -> None:
    search, engine = judged_by(lambda question, number: f"Verdict: {['correct', 'wrong'][number % 2]}")
    finish(engine, decide(search, Judge(n=2), "2 + 2?", "4", None))
    assert search.tree.decisions[judging.DECISION] == {"passed": None, "votes": [1, 1, 0]}


def test_told_to_end_meanwhile_it_decides_by_what_there_is_and_asks_nothing_more() -> None:
    search, engine = judged_by(lambda question, number: "Verdict: correct" + "." * (100 * number))
    ended = []

    def end() -> None:
        if any(node.stop == "stop" for node in search.tree.nodes[1:]) and not ended:
            ended.append(True)
            search.end("deadline")

    finish(engine, decide(search, Judge(n=3, max_tokens=400), "2 + 2?", "4", None), after_step=end)
    assert search.tree.decisions[judging.DECISION] == {"passed": True, "votes": [1, 0, 2]}
    assert finish(engine, assess(search, ONE, "?", "4")) == [0, 0, 0]
    assert len(engine.questions) == 3
