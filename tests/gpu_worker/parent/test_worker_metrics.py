from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry, generate_latest

from ponder_worker.parent.notices.notice import Notice, Notices, Reason
from ponder_worker.parent.worker_metrics import WorkerMetrics
from ponder_worker.protocol import EngineMetrics, Histogram


def test_metrics_are_read_when_somebody_asks() -> None:
    numbers: dict[str, int | float] = {"held_jobs": 1}
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(lambda: EngineMetrics(numbers), tuple))
    numbers["held_jobs"] = 7
    assert "ponder_worker_held_jobs 7.0" in generate_latest(registry).decode()


def test_notices_are_counted_by_source_and_kind_with_the_warning_that_they_gave() -> None:
    notices = Notices()
    notices.give(Notice(Reason.DRAINED, "aws rebalance recommendation", 120, "aws", "rebalance"))
    notices.give(Notice.preempting("aws", "terminate", 118.2))
    notices.give(Notice(Reason.ENGINE_DIED, "it has ended"))
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(EngineMetrics, lambda: notices.given))
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
    registry.register(WorkerMetrics(lambda: EngineMetrics(numbers, latencies, (0.5, 1.0)), tuple))
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


def test_the_parent_process_holds_no_torch() -> None:
    modules = "ponder_worker.main, ponder_worker.parent.worker, ponder_worker.verify"
    program = f"import sys, {modules}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
