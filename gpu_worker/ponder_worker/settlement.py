"""From what the engine finished to what Postgres settles: the verdicts, found without holding up the tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import structlog

from ponder.domain.state import JobState, Verdict
from ponder.jobs.claim import ClaimedJob
from ponder.jobs.tick import Settlement, Usage
from ponder_worker.verify import Case, is_pure

_log = structlog.get_logger(__name__)

Judge = Callable[[Mapping[str, Any] | None, str | None, str | None], Verdict]
"""Verifier spec, answer, reference. May take as long as its own limit says, and never raises."""


def _case(job: ClaimedJob, finished: Mapping[str, Any]) -> Case:
    choices = finished["choices"]
    return Case(
        job.request.get("verifier"), choices[0].get("answer") if choices else None, job.request.get("reference")
    )


class Settling:
    """Jobs between finished and judged. They stay held, so that a worker that stops now hands them on.

    Verdicts that take no time do not wait behind those that may take long, which could be another tenant's.
    """

    def __init__(self, judge: Judge, *, num_judges: int) -> None:
        self._judge = judge
        self._slow = ThreadPoolExecutor(num_judges, thread_name_prefix="judge")
        self._quick = ThreadPoolExecutor(1, thread_name_prefix="quick-judge")
        self._futures: dict[int, Future[Settlement]] = {}

    def add(self, job: ClaimedJob, finished: Mapping[str, Any]) -> None:
        if job.job_id not in self._futures:
            pool = self._quick if is_pure(_case(job, finished)) else self._slow
            self._futures[job.job_id] = pool.submit(self._settle, job, finished)

    def take(self, timeout_s: float = 0.0) -> list[Settlement]:
        """Those judged by now, each once; waits up to `timeout_s` for the rest."""
        if timeout_s > 0:
            wait(self._futures.values(), timeout=timeout_s)
        done = [job_id for job_id, future in self._futures.items() if future.done()]
        return [self._futures.pop(job_id).result() for job_id in done]

    def forget(self, job_id: int) -> None:
        if (future := self._futures.pop(job_id, None)) is not None:
            future.cancel()

    def _settle(self, job: ClaimedJob, finished: Mapping[str, Any]) -> Settlement:
        error, choices, case = finished["error"], finished["choices"], _case(job, finished)
        verdict = None
        if error is None:
            verdict = self._judge(case.verifier, case.answer, case.reference)
        return Settlement(
            job_id=job.job_id,
            state=JobState.COMPLETED if error is None else JobState.FAILED,
            verdict=verdict,
            answer=case.answer,
            finish_reason=finished["finish_reason"],
            choices=choices,
            error=error,
            usage=Usage(**finished["usage"]),
            tree=finished["tree"],
            learned=finished.get("learned") or {},
        )
