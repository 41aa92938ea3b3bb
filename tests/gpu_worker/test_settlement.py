"""Verdicts that take long, and those behind them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ponder.domain.state import Verdict
from ponder.jobs.claim import ClaimedJob
from ponder_worker.settlement import Settling

FINISHED = {
    "error": None,
    "choices": [{"answer": "4"}],
    "finish_reason": "stop",
    "tree": {},
    "usage": {f"{it}_tokens": 0 for it in ("prompt", "completion", "thinking", "reward", "cached", "recomputed")},
}


def _job(job_id: int, verifier: str) -> ClaimedJob:
    request = {"verifier": {"name": verifier, "schema": {}}, "reference": "4"}
    return ClaimedJob(job_id, "t", "b", request, [], datetime(2030, 1, 1), None, 0)


def test_verdicts_that_take_no_time_wait_for_none_that_do() -> None:
    may_answer = threading.Event()

    def judge(verifier: Mapping[str, Any] | None, answer: str | None, reference: str | None) -> Verdict:
        if verifier and verifier["name"] in ("json_schema", "math"):
            may_answer.wait(10)
        return Verdict.PASSED

    settling = Settling(judge, num_judges=2)
    for job_id, verifier in enumerate(["json_schema", "math", "json_schema", "number", "exact"]):
        settling.add(_job(job_id, verifier), FINISHED)
    assert {settlement.job_id for settlement in settling.take(0.5)} == {3, 4}
    may_answer.set()
    assert {settlement.job_id for settlement in settling.take(5)} == {0, 1, 2}
