"""A model as a judge: of one answer, of two, or of several.

It is asked in prompts of their own, which are nodes of the search tree. What it says is generated text alone: the texts
that it judges stand in the prompt, and are not read for a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ponder.domain.strategy import PLACEHOLDER, Judging
from ponder.domain.verifier import Judge
from ponder_worker.search.expansion.streams import GenerationOptions
from ponder_worker.search.search import Search

DECISION = "verdict"
"""The name under which a tree keeps the verdict of the verifier `judge`: {passed, votes}."""
Votes = list[int]
"""How many replies are for each possibility, and how many could not be read."""

_CORRECT = """\
Below are a problem and an answer to it. Is the answer correct?

# Problem

{problem}

# Answer

{answer}

# Task

Solve the problem yourself, and check the answer step by step against your solution. An answer is wrong if its final
result is wrong, if it gives no final result, or if it does not do what the problem asks."""
_CORRECT_BY_REFERENCE = """\
Below are a problem, its reference solution and an answer to it. Is the answer correct?

# Problem

{problem}

# Reference

{reference}

# Answer

{answer}

# Task

Compare the answer with the reference. An answer is correct if its final result means the same as that of the reference,
however it is written."""
_BETTER = """\
Below are a problem and two answers to it. Which one is better?

# Problem

{problem}

{answers}

# Task

Check both answers step by step. The better answer is the one that is correct. If both are, or neither, it is the one
with the sounder reasoning. The order of the answers says nothing about them."""
_BEST = """\
Below are a problem and several answers to it. Which one is the best?

# Problem

{problem}

{answers}

# Task

Check all answers step by step, and look at where they differ. The best answer is the one that is most likely correct.
The order of the answers says nothing about them."""
_END = "\n\nWrite down your reasoning. Then end with one line that says "
_SAY_VERDICT = f"{_END}`Verdict: correct` or `Verdict: wrong`."
_SAY_BETTER = f"{_END}`Better: A` or `Better: B`."
_SAY_CHOICE = f"{_END}`Choice: N`, where N is the number of the best answer."

_OFFER = re.compile(r"\bor\W{0,4}\Z", re.IGNORECASE)
"""The end of what comes before a mark that only names one of several possibilities."""


async def assess(search: Search, judging: Judging, problem: str, answer: str, reference: str | None = None) -> Votes:
    """Asks whether an answer is correct. Returns the votes for correct and for wrong."""
    shipped = _CORRECT if reference is None else _CORRECT_BY_REFERENCE
    texts = {"problem": problem, "answer": answer, "reference": reference or ""}
    question = f"{_fill(judging.template or shipped, texts)}{_SAY_VERDICT}"
    (replies,) = await _ask(search, judging, [(question, judging.n)])
    return _count([_verdict(reply) for reply in replies or ()], 2)


async def compare(search: Search, judging: Judging, problem: str, pairs: Sequence[tuple[str, str]]) -> list[Votes]:
    """Asks which answer of each pair is better. Returns the votes for the first and for the second.

    Half of the replies see a pair in the other order, because judges prefer a place.
    """
    orders = [(judging.n + 1) // 2, judging.n // 2]
    questions = [
        (_pair(judging, problem, answers), num)
        for pair in pairs
        for answers, num in zip((pair, pair[::-1]), orders, strict=True)
        if num
    ]
    replies = iter(await _ask(search, judging, questions))
    votes = []
    for _ in pairs:
        read: list[int | None] = []
        for is_turned in range(sum(map(bool, orders))):
            chosen = [_better(reply) for reply in next(replies) or ()]
            read += [None if one is None else one ^ is_turned for one in chosen]
        votes.append(_count(read, 2))
    return votes


async def choose(search: Search, judging: Judging, problem: str, lists: Sequence[Sequence[str]]) -> list[Votes | None]:
    """Asks for the best answer of each list. Returns the votes for each answer; None for a list that does not fit."""
    questions = [
        (
            f"{_fill(judging.template or _BEST, _texts(problem, answers, range(1, len(answers) + 1)))}{_SAY_CHOICE}",
            judging.n,
        )
        for answers in lists
    ]
    asked = zip(await _ask(search, judging, questions), lists, strict=True)
    return [
        None if replies is None else _count([_choice(reply, len(answers)) for reply in replies], len(answers))
        for replies, answers in asked
    ]


async def decide(search: Search, judge: Judge, problem: str, answer: str, reference: str | None) -> None:
    """Decides by the verifier `judge` whether the job's answer is right, and records it in the tree.

    An answer without text is wrong. If the votes are equal, or there are none, nobody knows.
    """
    if DECISION in search.tree.decisions:
        return
    if not answer.strip():
        search.tree.decide(DECISION, {"passed": False, "votes": [0, 0, 0]})
        return
    votes = await assess(search, judge, problem, answer, reference if judge.use_reference else None)
    search.tree.decide(DECISION, {"passed": None if votes[0] == votes[1] else votes[0] > votes[1], "votes": votes})


def _pair(judging: Judging, problem: str, answers: Sequence[str]) -> str:
    return f"{_fill(judging.template or _BETTER, _texts(problem, answers, 'AB'))}{_SAY_BETTER}"


def _texts(problem: str, answers: Sequence[str], labels: Sequence[object]) -> Mapping[str, str]:
    parts = [f"# Answer {label}\n\n{answer}" for label, answer in zip(labels, answers, strict=True)]
    return {"problem": problem, "answers": "\n\n".join(parts)}


def _fill(template: str, texts: Mapping[str, str]) -> str:
    """Puts the texts into a template, in one pass: what looks like a placeholder in one of them is text."""
    return PLACEHOLDER.sub(lambda found: texts.get(found[1], found[0]), template)


async def _ask(search: Search, judging: Judging, questions: Sequence[tuple[str, int]]) -> list[list[str] | None]:
    """Returns the replies to questions that are asked side by side; None for a question that does not fit.

    Questions: the text, and how many replies. They are asked in this order whatever takes how long to render.
    """
    context = search.engine.context_length
    room = context - min(judging.max_tokens, context // 2)  # where there is little, replies are shorter
    prompts = [await search.engine.question(text) for text, _ in questions]
    options = GenerationOptions(
        thought=search.engine.thought, max_tokens=judging.max_tokens, judges=True, is_greedy=judging.n == 1
    )
    asked = [
        search.ask(prompt, num, options) if prompt is not None and len(prompt) <= room else None
        for prompt, (_, num) in zip(prompts, questions, strict=True)
    ]
    replies: list[list[str] | None] = []
    for prompt, expansion in zip(prompts, asked, strict=True):
        if expansion is not None:
            replies.append([search.said(leaf) for leaf in await expansion.all()])
        else:
            replies.append([] if prompt is not None and len(prompt) <= room else None)
    return replies


def _count(read: Sequence[int | None], num: int) -> Votes:
    return [sum(one == possibility for one in read) for possibility in (*range(num), None)]


def _verdict(reply: str) -> int | None:
    said = _marked("verdict", "correct|wrong|incorrect", reply)
    return None if said is None else int(said.lower() != "correct")


def _better(reply: str) -> int | None:
    said = _marked("better", "(?-i:[AB])", reply)  # "Better: a careful look" names none
    return None if said is None else int(said == "B")


def _choice(reply: str, num: int) -> int | None:
    said = _marked("choice", r"\d{1,4}(?!\.\d)", reply)
    return int(said) - 1 if said is not None and 1 <= int(said) <= num else None


def _marked(mark: str, value: str, reply: str) -> str | None:
    """Returns what is said behind the last mark of a reply, if it is one of the values and no offer of several."""
    marks = list(re.finditer(rf"\b{mark}\b[*_`]*\s?:", reply, re.IGNORECASE))
    if not marks or _OFFER.search(reply, max(0, marks[-1].start() - 8), marks[-1].start()):
        return None
    said = re.compile(
        rf"[\s*_`\"'(#]*(?:\\(?:boxed|text)\{{)*(?:(?:answer|option|solution)\s)?[*_`(#]*({value})(?!\w)(?!\W{{0,4}}(?:or\b|/))",
        re.IGNORECASE,
    ).match(reply, marks[-1].end())
    return None if said is None else said[1]
