"""A stage is skipped only for problems that it was seen not to solve, and only where that saves work."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.search.routing import choose, groups, lessons, with_confidence

SMALL, LARGE = 1.0, 8.0


def problem(level: str, text: str = "1 + 1 = ?", **metadata: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "kept": {"metadata": {"level": level} | metadata}}


def learn(solves: dict[str, float], *, num_jobs: int, next_work: float = LARGE) -> tuple[Counter[str], list[str]]:
    """Plays a batch whose first stage solves this share of each level. Returns the levels of the later half of its
    jobs, and how often each of them was skipped there.
    """
    here, there, random = Counter[str](), Counter[str](), Random(1)
    skipped, levels = Counter[str](), list(solves)
    late = []
    for number in range(num_jobs):
        level = levels[number % len(levels)]
        names = groups(problem(level, id=str(number)))
        route = choose(here, there, names, random)
        if number >= num_jobs // 2:
            late.append(level)
            skipped[level] += route.skipped
        is_accepted = False
        if not route.skipped:
            is_accepted = random.random() < solves[level]
            here.update(lessons(names, is_accepted=is_accepted, work=SMALL))
        if not is_accepted:
            there.update(lessons(names, is_accepted=True, work=next_work))
    return skipped, late


def test_nothing_is_skipped_before_anything_is_known() -> None:
    assert not any(choose({}, {}, groups(problem("1")), Random(seed)).skipped for seed in range(50))


def test_hopeless_problems_take_the_slow_path_at_once_and_easy_ones_the_fast_one() -> None:
    skipped, late = learn({"1": 0.9, "5": 0.0}, num_jobs=400)
    assert skipped["5"] > 0.8 * late.count("5")
    assert skipped["5"] < late.count("5"), "it is tried now and then"
    assert skipped["1"] <= 0.02 * late.count("1")


def test_what_is_skipped_depends_on_what_the_next_stage_costs() -> None:
    cheap, late = learn({"1": 0.3}, num_jobs=300, next_work=2 * SMALL)
    dear, _ = learn({"1": 0.3}, num_jobs=300, next_work=20 * SMALL)
    assert cheap["1"] > 0.7 * len(late)
    assert dear["1"] <= 0.02 * len(late)


def test_groups_hold_nothing_of_the_prompt_and_are_few() -> None:
    names = {name for number in range(2_000) for name in groups(problem(str(number), id=f"secret {number}"))}
    assert len(names) <= 1 + 16 + 16 * 16
    assert not any("secret" in name or "+" in name for name in names)
    assert groups(problem("1"))[1] != groups(problem("1", "x" * 500))[1], "lengths are told apart"
    assert groups({"prompt": [1, 2, 3]}) == ("all", "level none length 2", "level none length 2 metadata none")


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_more_confident_the_higher_the_class_and_there_are_few(one: float, other: float) -> None:
    low, high = (with_confidence(("all",), value)[-1] for value in sorted([one, other]))
    assert low <= high
    assert low.removeprefix("all confidence ") in "01234567"


def test_problems_that_look_alike_are_told_apart_by_the_first_tokens() -> None:
    here, there, random = Counter[str](), Counter[str](), Random(2)
    ended = Counter[bool]()
    for number in range(600):
        names, is_sure = groups(problem("1")), number % 2 == 0
        assert not choose(here, there, names, random).skipped
        begun = with_confidence(names, 0.99 if is_sure else 0.4)
        route = choose(here, there, begun, random)
        ended[is_sure] += route.skipped and number >= 300
        if not route.skipped:
            here.update(lessons(begun, is_accepted=is_sure, work=SMALL))
        if route.skipped or not is_sure:
            there.update(lessons(names, is_accepted=True, work=LARGE))
    assert ended[False] > 0.8 * 150
    assert ended[True] <= 3
