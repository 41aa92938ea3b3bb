"""When the answer of a stage is good enough."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from ponder.domain.batch.calibration import Calibration
from ponder.domain.strategy import ACCEPT
from ponder_worker.search.acceptance import DECISION, agreement, decide, lessons
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.tree.candidate import Candidate

from .conftest import Attempt, attempt, run

SHORT = SearchLimits(None, None, 12)


def judged(
    rule: dict[str, Any],
    strategy: dict[str, Any],
    *,
    job_seed: int = 0,
    learned: dict[str, float] | None = None,
    calibration: Calibration | None = None,
) -> tuple[dict[str, Any], Attempt]:
    """Returns the decision about what a strategy has made."""
    one = attempt(SHORT, rng=random.Random(job_seed), job_seed=job_seed)
    one.search.learned = lambda: learned or {}
    ranked = run(one, strategy)
    assert ranked

    async def live() -> None:
        task = asyncio.ensure_future(decide(one.search, ACCEPT.validate_python(rule), ranked, calibration))
        while not task.done():
            await asyncio.sleep(0)
            one.engine.step()
        task.result()

    asyncio.run(live())
    decision: dict[str, Any] = one.search.tree.decisions[DECISION]
    return decision, one


def made(answers: list[str | None], *, is_complete: bool = True) -> list[Candidate]:
    one = attempt(SHORT, rng=random.Random(0), job_seed=0)
    run(one, {"name": "direct"})
    assert one.ranked
    return [replace(one.ranked[0], answer=answer, is_complete=is_complete) for answer in answers]


@pytest.mark.parametrize(
    ("answers", "share"),
    [(["4", "4.0", "5", None], 0.5), (["4"], 1.0), ([None, "4"], 0.0), (["4", "5", "5"], 1 / 3)],
)
def test_agreement_is_the_share_of_samples_that_give_the_chosen_answer(answers: list[str | None], share: float) -> None:
    assert agreement(made(answers)) == pytest.approx(share)


def test_an_answer_that_was_cut_off_has_no_vote() -> None:
    assert agreement(made(["4", "4"], is_complete=False)) == 0.0


def test_the_reward_models_probability_of_the_chosen_text_decides_whether_the_strategy_scored_it_or_not() -> None:
    by_strategy = {}
    for name in ("best_of_n", "self_consistency"):
        for job_seed in range(12):
            decision, one = judged({"by": "reward", "threshold": 0.5}, {"name": name, "n": 3}, job_seed=job_seed)
            assert decision["accepted"] == (decision["probability"] >= 0.5)
            chosen = one.ranked[0] if one.ranked else None
            if name == "best_of_n" and chosen is not None and chosen.answer is not None and chosen.is_complete:
                assert chosen.score is not None
                assert decision["probability"] == pytest.approx(math.exp(chosen.score))
            by_strategy.setdefault(name, set()).add(decision["probability"])
    assert all(len(probabilities) > 3 for probabilities in by_strategy.values())


def test_a_verdict_decides_and_is_asked_for_once() -> None:
    decided = set()
    for job_seed in range(12):
        decision, one = judged({"by": "verifier"}, {"name": "direct"}, job_seed=job_seed)
        assert one.engine.num_verified == 1
        assert one.ranked
        assert decision == {"by": "verifier", "accepted": bool(one.ranked[0].node.passed)}
        decided.add(decision["accepted"])
    assert decided == {True, False}


def test_a_judges_votes_decide_and_an_answer_that_was_cut_off_is_not_shown_to_it() -> None:
    decided = set()
    for job_seed in range(80):
        decision, one = judged({"by": "judge", "n": 3, "max_tokens": 6}, {"name": "direct"}, job_seed=job_seed)
        assert one.ranked
        chosen = one.ranked[0]
        if not chosen.is_complete or not chosen.text.strip():
            assert decision == {"by": "judge", "accepted": False, "votes": [0, 0, 0]}
            continue
        correct, wrong, unread = decision["votes"]
        assert correct + wrong + unread == 3
        assert decision["accepted"] == (correct > wrong)
        decided.add(decision["accepted"])
    assert decided == {True, False}


def test_a_learnt_threshold_goes_by_how_often_answers_of_this_measure_were_right() -> None:
    votes = {"name": "self_consistency", "n": 4, "early_stopping": None}
    right = {f"measure{place}.{name}": 1e6 for place in range(10) for name in ("num", "right")}
    wrong = right | {f"measure{place}.right": 0.0 for place in range(10)}
    rule = {"by": "agreement", "threshold": 0.75, "learn": True}
    for job_seed in range(5):
        decision, _ = judged(rule, votes, job_seed=job_seed, learned=right)
        assert decision["accepted"], "however few agree"
        assert decision["chance"] > 0.99
        assert not judged(rule, votes, job_seed=job_seed, learned=wrong)[0]["accepted"], "however many agree"


def test_before_anything_is_learnt_the_measure_itself_is_the_chance() -> None:
    votes = {"name": "self_consistency", "n": 4, "early_stopping": None}
    rule = {"by": "agreement", "learn": True}
    decisions = [judged(rule, votes, job_seed=job_seed)[0] for job_seed in range(40)]
    told = sum(decision["agreement"] for decision in decisions) / len(decisions)
    drawn = sum(decision["chance"] for decision in decisions) / len(decisions)
    assert drawn == pytest.approx(told, abs=0.15)
    assert lessons(decisions[0], is_right=True).keys() == {
        f"{decisions[0]['place']}.{name}" for name in ("num", "right")
    }


def test_a_calibrated_probability_counts_for_what_it_was_worth_elsewhere() -> None:
    calibration = Calibration("batch_other", 50, ((0.0, 0.1), (1.0, 0.7)))
    rule = {"by": "reward", "threshold": 0.6}
    decided = set()
    for job_seed in range(12):
        decision, _ = judged(rule, {"name": "best_of_n", "n": 2}, job_seed=job_seed, calibration=calibration)
        assert decision["chance"] == (0.1 if decision["probability"] < 0.005 else 0.7)
        assert decision["accepted"] == (decision["chance"] == 0.7)
        assert decision["calibrated_on"] == "batch_other"
        decided.add(decision["accepted"])
    assert True in decided
