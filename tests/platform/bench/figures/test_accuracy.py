"""Estimators of accuracy, against brute force."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest
from bench_records import record
from hypothesis import given
from hypothesis import strategies as st

from ponder.bench.figures.accuracy import Sample, accuracy_of, best_at_k, majority_at_k, pass_at_k
from ponder.bench.figures.grades import Grades

SAMPLES = st.lists(
    st.builds(Sample, st.sampled_from("ab"), st.floats(-5, 0, allow_nan=False), st.booleans()), min_size=1, max_size=7
)


@given(SAMPLES, st.data())
def test_pass_at_k_is_the_mean_over_all_draws(samples: list[Sample], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(samples)))
    draws = [any(one.is_right for one in drawn) for drawn in combinations(samples, k)]
    assert pass_at_k(samples, k) == pytest.approx(fmean(draws))


@given(SAMPLES, st.data())
def test_best_at_k_is_the_mean_over_all_draws(samples: list[Sample], data: st.DataObject) -> None:
    samples = [Sample(one.answer, float(place), one.is_right) for place, one in enumerate(samples)]
    k = data.draw(st.integers(1, len(samples)))
    draws = [max(drawn, key=lambda one: one.score or 0.0).is_right for drawn in combinations(samples, k)]
    assert best_at_k(samples, k) == pytest.approx(fmean(draws))


def test_the_majority_of_all_samples_decides() -> None:
    samples = [Sample("7", None, True), Sample("8", None, False), Sample("8", None, False), Sample(None, None, False)]
    assert majority_at_k(samples, 4) == 0.0
    assert majority_at_k(samples[:1] * 3 + samples[1:3], 5) == 1.0
    assert majority_at_k(samples, 1) == 0.25


def test_candidates_get_the_verdict_that_their_answer_got_anywhere_in_the_run() -> None:
    grades = Grades(
        [record("p", answer="7"), record("p", 1, answer="8", passed=False)], {"p": "seven", "q": "1/2"}, "math"
    )
    answers = [("p", "7"), ("p", "8"), ("p", "seven"), ("p", "9"), ("p", None), ("q", "7")]
    assert [grades.grade(*one) for one in answers] == [True, False, True, None, False, None]


def test_a_verifier_that_passes_only_the_reference_settles_other_numbers_and_letters() -> None:
    grades = Grades([], {"p": "1,000", "q": "C"}, "choice")
    answers = [("p", "1000"), ("p", "12"), ("p", "about 12"), ("q", "c"), ("q", "D")]
    assert [grades.grade(*one) for one in answers] == [True, False, None, True, False]


def test_what_a_model_judged_is_told_with_how_often_the_reference_says_the_same() -> None:
    jobs = [record("p", judged=True, checked="passed"), record("q", judged=True, checked="failed")]
    jobs += [record("r", judged=True, checked="unverified"), record("s", passed=False)]
    found = accuracy_of(jobs, "best_of_n", Grades(jobs, {}, "judge"))
    assert (found.pass_1.value, found.judged) == (0.75, 0.75)
    assert (found.num_compared, found.agreement) == (2, 0.5)
    (bare,) = [accuracy_of([record()], "direct", Grades([], {}, None))]
    assert (bare.judged, bare.num_compared, bare.agreement) == (0.0, 0, None)


def test_seeds_of_direct_jobs_are_the_samples_of_a_problem() -> None:
    jobs = [record("p", seed, passed=seed < 1, level="Level 2") for seed in range(4)]
    jobs += [record("q", seed, passed=True, level="Level 1") for seed in range(4)]
    found = accuracy_of(jobs, "direct", Grades(jobs, {}, None))
    assert found.pass_1.value == pytest.approx((0.25 + 1) / 2)
    assert {k: one.value for k, one in found.pass_k.items()} == pytest.approx({1: 0.625, 2: 0.75, 4: 1.0})
    assert [(one.level, one.pass_1.value) for one in found.by_level] == [("Level 1", 1.0), ("Level 2", 0.25)]


def test_candidates_of_a_search_over_steps_are_no_independent_samples() -> None:
    jobs = [record("p", answers=[("7", -1.0), ("8", -2.0)])]
    assert accuracy_of(jobs, "beam_search", Grades(jobs, {}, None)).pass_k == {}
    found = accuracy_of(jobs, "best_of_n", Grades(jobs, {"p": "7"}, "number"))
    assert (found.pass_k[2].value, found.best_k[2].value, found.best_k[1].value, found.graded) == (1.0, 1.0, 0.5, 1.0)
