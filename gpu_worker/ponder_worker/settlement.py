"""From what the engine finished to what Postgres settles: the verdicts, found without holding up the tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import structlog

from ponder.domain.state import JobState, Verdict
from ponder.jobs.claim import ClaimedJob
from ponder.jobs.tick import Settlement, Usage

_log = structlog.get_logger(__name__)

Judge = Callable[[Mapping[str, Any] | None, str | None, str | None], Verdict]
"""Verifier spec, answer, reference. May take as long as its own limit says, and never raises."""


class Settling:
    """Jobs between finished and judged. They stay held, so that a worker that stops now hands them on."""

    def __init__(self, judge: Judge, *, num_judges: int) -> None:
        self._judge = judge
        self._pool = ThreadPoolExecutor(num_judges, thread_name_prefix="judge")
        self._futures: dict[int, Future[Settlement]] = {}

    def add(self, job: ClaimedJob, finished: Mapping[str, Any]) -> None:
        if job.job_id not in self._futures:
            self._futures[job.job_id] = self._pool.submit(self._settle, job, finished)

    def take(self, timeout_s: float = 0.0) -> list[Settlement]:
        """Those judged by now, each once; waits up to `timeout_s` for the rest."""
        if timeout_s > 0:
            wait(self._futures.values(), timeout=timeout_s)
        done = [job_id for job_id, future in self._futures.items() if future.done()]
        return [self._futures.pop(job_id).result() for job_id in done]

    def forget(self, job_id: int) -> None:
        if (future := self._futures.pop(job_id, None)) is not None:
            future.cancel()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _settle(self, job: ClaimedJob, finished: Mapping[str, Any]) -> Settlement:
        error, choices = finished["error"], finished["choices"]
        answer = choices[0].get("answer") if choices else None
        verdict = None
        if error is None:
            verdict = self._judge(job.request.get("verifier"), answer, job.request.get("reference"))
        return Settlement(
            job_id=job.job_id,
            state=JobState.COMPLETED if error is None else JobState.FAILED,
            verdict=verdict,
            answer=answer,
            finish_reason=finished["finish_reason"],
            choices=choices,
            error=error,
            usage=Usage(**finished["usage"]),
            tree=finished["tree"],
        )
