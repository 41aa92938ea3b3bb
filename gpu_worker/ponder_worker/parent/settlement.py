"""From what the engine finished to what Postgres settles: the verdicts, found without holding up the tick."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, wait
from typing import Any

import structlog

from ponder.domain.state import JobState, Verdict
from ponder.jobs.claim import ClaimedJob
from ponder.jobs.tick import Settlement, Usage
from ponder_worker.verify import Case, Judgement

_log = structlog.get_logger(__name__)

Hear = Callable[[Case, Hashable], Future[Judgement]]
"""A case, and whose turn it takes. The judgement may take as long as its own limit says, and is never an exception."""


def _case(job: ClaimedJob, finished: Mapping[str, Any]) -> Case:
    """A job that failed is not judged."""
    verifier = job.request.get("verifier") if finished["error"] is None else None
    return Case(verifier, _answer(finished), job.request.get("reference"))


def _answer(finished: Mapping[str, Any]) -> str | None:
    choices = finished["choices"]
    return choices[0].get("answer") if choices else None


class Settling:
    """Jobs between finished and judged. They stay held, so that a worker that stops now hands them on."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._finished: dict[int, Mapping[str, Any]] = {}
        self._futures: dict[int, Future[Judgement]] = {}
        self._told: set[str | None] = set()

    def add(self, job: ClaimedJob, finished: Mapping[str, Any]) -> None:
        if job.job_id not in self._futures:
            self._finished[job.job_id] = finished
            self._futures[job.job_id] = self._hear(_case(job, finished), job.tenant_id)

    def take(self, timeout_s: float = 0.0) -> list[Settlement]:
        """Those judged by now, each once; waits up to `timeout_s` for the rest."""
        if timeout_s > 0:
            wait(self._futures.values(), timeout=timeout_s)
        done = [job_id for job_id, future in self._futures.items() if future.done()]
        judged = [(job_id, self._finished.pop(job_id), self._futures.pop(job_id).result()) for job_id in done]
        for job_id, finished, judgement in judged:
            if finished["error"] is None and judgement.verdict is Verdict.UNVERIFIED:
                self._tell_once(job_id, judgement.reason)
        return [_settlement(*one) for one in judged]

    def forget(self, job_id: int) -> None:
        self._finished.pop(job_id, None)
        if (future := self._futures.pop(job_id, None)) is not None:
            future.cancel()

    def _tell_once(self, job_id: int, reason: str | None) -> None:
        """It may be the machine's fault, such as one that cannot run programs apart, and then it is the operator's."""
        if reason not in self._told:
            self._told.add(reason)
            _log.info("not_verified", job=job_id, reason=reason)


def _settlement(job_id: int, finished: Mapping[str, Any], judgement: Judgement) -> Settlement:
    error, choices = finished["error"], finished["choices"]
    return Settlement(
        job_id=job_id,
        state=JobState.COMPLETED if error is None else JobState.FAILED,
        verdict=judgement.verdict if error is None else None,
        answer=_answer(finished),
        finish_reason=finished["finish_reason"],
        choices=choices,
        error=error,
        usage=Usage(**finished["usage"]),
        tree=finished["tree"],
        learned=finished.get("learned") or {},
    )
