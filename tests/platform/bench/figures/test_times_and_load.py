"""Users' times, the service's load, and the statistics under them."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest
from bench_records import record

from ponder.bench.figures.interval_estimate import bootstrap, mean_share, quantile, rank_correlation, share
from ponder.bench.figures.throughput import service_of
from ponder.bench.figures.user_times import user_times_of


def test_times_are_counted_from_the_submission_and_per_output_token() -> None:
    found = user_times_of([record()])
    assert (found.first_token_s.p50, found.first_visible_token_s.p50, found.end_to_end_s.p99) == (1.0, 1.5, 5.0)
    assert found.token_s.p50 == pytest.approx(3.0 / 30)


def test_stragglers_are_the_share_of_the_time_after_nine_tenths_of_the_jobs() -> None:
    jobs = [record(f"p{n}", ended_at=110.0 if n < 9 else 140.0, settled_at=141.0) for n in range(10)]
    assert user_times_of(jobs).stragglers == pytest.approx(30 / 40)
    assert user_times_of(jobs[:1]).stragglers == 0.0


def test_the_level_is_compared_with_the_time_and_the_length() -> None:
    jobs = [
        record(f"p{n}", level=f"Level {n}", ended_at=102.0 + n, completion_tokens=100 - n) for n in (1, 2, 3, 4, 12)
    ]
    found = user_times_of(jobs)
    assert (found.level_and_time, found.level_and_tokens) == (pytest.approx(1.0), pytest.approx(-1.0))
    assert [one.level for one in found.by_level][-1] == "Level 12"


def test_load_is_summed_over_samples_and_falls_are_those_of_one_worker() -> None:
    def sample(worker: str, kv_usage: float, **fields: Any) -> dict[str, Any]:
        given = dict.fromkeys(("num_steps", "computed_tokens", "num_preemptions", "prefix_queries", "prefix_hits"), 10)
        return {"incarnation_id": worker, "kv_usage": kv_usage, "num_running": 4, "memory_bytes": 7} | given | fields

    samples = [sample("a", 0.8), sample("b", 0.1), sample("a", 0.5, prefix_hits=0), sample("b", 0.2)]
    found = service_of([record(settled_at=110.0)], samples)
    assert (found.output_tokens_per_s, found.total_tokens_per_s, found.jobs_per_s) == pytest.approx((3.1, 4.1, 0.1))
    assert (found.kv_fall, found.kv_swing) == pytest.approx((0.3, 0.2))
    assert (found.batch_fill, found.preemptions, found.cache_hit_rate) == (1.0, 40, 0.75)


def test_without_samples_only_what_the_jobs_tell_is_known() -> None:
    found = service_of([record()], [])
    assert (found.num_samples, found.kv_mean, found.preemptions) == (0, None, None)


def test_ranks_share_ties_and_a_side_that_does_not_vary_has_no_correlation() -> None:
    assert rank_correlation([1, 2, 2, 3], [10, 20, 20, 30]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None
    assert rank_correlation([], []) is None


def test_intervals_hold_the_value_and_shrink_with_more_items() -> None:
    few, many = (bootstrap([0.0, 1.0] * num, fmean) for num in (10, 200))
    for one in (few, many, share(3, 10), share(0, 10)):
        assert one.low is not None
        assert one.high is not None
        assert one.value is not None
        assert one.low <= one.value <= one.high
    assert (many.high or 0) - (many.low or 0) < (few.high or 0) - (few.low or 0)
    never = mean_share([0.0] * 8)
    assert (never.value, never.low) == (0.0, 0.0)
    assert 0.2 < (never.high or 0) < 0.5, "eight failures do not show that there is never a success"
    assert quantile([1.0, 2.0, 4.0], 0.75) == 3.0
