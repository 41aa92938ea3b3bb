from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ponder.domain.state import JobState, Lane, Verdict
from ponder.jobs.tick_report import Settlement
from ponder_worker.parent.notices.notice import Notice, Notices, Reason
from ponder_worker.parent.worker_metrics import JobMetrics, WorkerMetrics
from ponder_worker.protocol import EngineMetrics, Histogram

from ..claimed_job import SUBMITTED_AT, claimed_job


def test_metrics_are_read_when_somebody_asks() -> None:
    numbers: dict[str, int | float] = {"held_jobs": 1}
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(lambda: EngineMetrics(numbers), tuple, tuple))
    numbers["held_jobs"] = 7
    assert "ponder_worker_held_jobs 7.0" in generate_latest(registry).decode()


def test_notices_are_counted_by_source_and_kind_with_the_warning_that_they_gave() -> None:
    notices = Notices()
    notices.give(Notice(Reason.DRAINED, "aws rebalance recommendation", 120, "aws", "rebalance"))
    notices.give(Notice.preempting("aws", "terminate", 118.2))
    notices.give(Notice(Reason.ENGINE_DIED, "it has ended"))
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(EngineMetrics, lambda: notices.given, tuple))
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        'ponder_worker_notices_total{kind="rebalance",source="aws"} 1.0',
        'ponder_worker_notices_total{kind="terminate",source="aws"} 1.0',
        'ponder_worker_notices_total{kind="failure",source="worker"} 1.0',
        'ponder_worker_notice_warning_seconds{kind="terminate",source="aws"} 118.2',
    ):
        assert line in lines
    assert len([line for line in lines if line.startswith("ponder_worker_notice_warning_seconds{")]) == 1


def test_numbers_have_the_names_that_vllms_users_know() -> None:
    numbers = {"num_running": 3, "generated_tokens": 9, "prefix_hits": 5, "kv_cache_usage_perc": 0.25}
    numbers |= {"num_steps": 4, "computed_tokens": 12, "misguessed_tokens": 2}
    latencies = {"time_to_first_token_seconds": Histogram((1, 2, 4), 9.5)}
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(lambda: EngineMetrics(numbers, latencies, (0.5, 1.0)), tuple, tuple))
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        "ponder:num_requests_running 3.0",
        "ponder:generation_tokens_total 9.0",
        "ponder:prefix_cache_hits_total 5.0",
        "ponder:kv_cache_usage_perc 0.25",
        "ponder:engine_steps_total 4.0",
        "ponder:step_tokens_total 12.0",
        "ponder:misguessed_tokens_total 2.0",
        'ponder:time_to_first_token_seconds_bucket{le="1.0"} 3.0',
        "ponder:time_to_first_token_seconds_count 7.0",
        "ponder:time_to_first_token_seconds_sum 9.5",
    ):
        assert line in lines


@pytest.fixture
def jobs() -> JobMetrics:
    return JobMetrics()


def _scraped(jobs: JobMetrics) -> Iterable[str]:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(EngineMetrics, tuple, jobs.collect))
    return generate_latest(registry).decode().splitlines()


def _count(
    jobs: JobMetrics,
    after_s: float,
    *,
    verdict: Verdict | None = Verdict.PASSED,
    lane: Lane = Lane.BATCH,
    former: tuple[str, ...] = (),
    **settlement: Any,
) -> None:
    """Counts a job that was settled so many seconds after its submission."""
    state = JobState.FAILED if verdict is None else JobState.COMPLETED
    settled = Settlement(1, state, verdict, **settlement)
    jobs.count(
        replace(claimed_job(1, lane=lane), former_outcomes=former), settled, SUBMITTED_AT + timedelta(seconds=after_s)
    )


def _ms(after_s: float) -> int:
    return int((SUBMITTED_AT.timestamp() + after_s) * 1_000)


def test_settled_jobs_are_timed_from_their_submission_by_lane(jobs: JobMetrics) -> None:
    _count(jobs, 100, first_token_ms=_ms(4), first_visible_token_ms=_ms(20))
    _count(jobs, 2, lane=Lane.INTERACTIVE, first_token_ms=_ms(3))  # by a clock that is ahead of Postgres's
    lines = _scraped(jobs)
    for line in (
        'ponder_worker_job_end_to_end_seconds_bucket{lane="batch",le="60.0"} 0.0',
        'ponder_worker_job_end_to_end_seconds_bucket{lane="batch",le="120.0"} 1.0',
        'ponder_worker_job_end_to_end_seconds_sum{lane="batch"} 100.0',
        'ponder_worker_job_first_token_seconds_sum{lane="batch"} 4.0',
        'ponder_worker_job_first_visible_token_seconds_sum{lane="batch"} 20.0',
        'ponder_worker_job_end_to_end_seconds_sum{lane="interactive"} 2.0',
        'ponder_worker_job_first_token_seconds_sum{lane="interactive"} 2.0',
        'ponder_worker_job_first_visible_token_seconds_count{lane="interactive"} 0.0',
    ):
        assert line in lines


def test_settled_jobs_are_counted_by_verdict(jobs: JobMetrics) -> None:
    for verdict in (Verdict.PASSED, Verdict.PASSED, Verdict.UNVERIFIED, None):
        _count(jobs, 1, verdict=verdict)
    lines = _scraped(jobs)
    for result, number in {"passed": 2, "failed": 0, "unverified": 1, "error": 1}.items():
        assert f'ponder_worker_settled_jobs_total{{result="{result}"}} {number}.0' in lines


def test_a_job_counts_as_retried_once_for_each_reason(jobs: JobMetrics) -> None:
    _count(jobs, 1, former=("lost", "preempted"), tree={"rounds": [0, 2, 4]})
    _count(jobs, 1, former=("lost",), tree={"rounds": [0]})
    lines = _scraped(jobs)
    for reason, number in {"round": 1, "preempted": 1, "lost": 2, "handed_on": 0}.items():
        assert f'ponder_worker_retried_jobs_total{{reason="{reason}"}} {number}.0' in lines


def test_the_parent_process_holds_no_torch() -> None:
    modules = "ponder_worker.main, ponder_worker.parent.worker, ponder_worker.verify"
    program = f"import sys, {modules}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
