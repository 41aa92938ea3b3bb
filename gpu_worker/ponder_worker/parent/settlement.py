"""Turning a job's result into its settlement in Postgres, without holding up the tick for the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from dataclasses import fields

import structlog

from ponder.domain.state import JobState, Verdict
from ponder.domain.verifier import Math
from ponder.jobs.claim import ClaimedJob
from ponder.jobs.tick import Settlement
from ponder.trace import log_ids
from ponder_worker.answers.extraction import extract
from ponder_worker.parent.job_traces import JobTraces
from ponder_worker.protocol import Choice, Document, JobError, JobResult
from ponder_worker.verify import Case, Judgement

_CHECK = Math().model_dump()
_log = structlog.get_logger(__name__)

Submit = Callable[[Case, Hashable], Future[Judgement]]
"""Submits a case in the turn of somebody. The judgement may take as long as its own limit, and never raises."""


class Settling:
    """Finished jobs that are being judged. They stay held, so that a worker that stops now hands them on."""

    def __init__(self, submit: Submit, traces: JobTraces | None = None) -> None:
        self._submit = submit
        self._traces = traces
        self._times_s: dict[int, list[float]] = {}
        self._results: dict[int, tuple[ClaimedJob, JobResult]] = {}
        self._judgements: dict[int, Future[Judgement]] = {}
        self._logged: set[str | None] = set()

    def add(self, job: ClaimedJob, result: JobResult) -> None:
        if job.job_id not in self._judgements:
            self._results[job.job_id] = job, result
            times_s = self._times_s[job.job_id] = [time.monotonic()]
            future = self._judgements[job.job_id] = self._submit(_case(job, result), job.tenant_id)
            future.add_done_callback(lambda _: times_s.append(time.monotonic()))

    def take(self, timeout_s: float = 0.0) -> list[Settlement]:
        """Returns those judged by now, each once; waits up to `timeout_s` for the rest."""
        if timeout_s > 0:
            wait(self._judgements.values(), timeout=timeout_s)
        done = [job_id for job_id, future in self._judgements.items() if future.done()]
        return [self._settle(*self._results.pop(job_id), self._judgements.pop(job_id).result()) for job_id in done]

    def forget(self, job_id: int) -> None:
        self._results.pop(job_id, None)
        self._times_s.pop(job_id, None)
        if (future := self._judgements.pop(job_id, None)) is not None:
            future.cancel()

    def _settle(self, job: ClaimedJob, result: JobResult, judgement: Judgement) -> Settlement:
        checked = None
        if result.error is None and _is_judged(job):
            checked = judgement.verdict if job.request.get("reference") is not None else None
            judgement = _judged(result)
        if result.error is None and judgement.verdict is Verdict.UNVERIFIED:
            self._log_once(job, judgement.reason)
        settlement = _settlement(result, judgement, checked)
        began_s, *ended_s = self._times_s.pop(result.job_id)
        if self._traces is not None:
            self._traces.judged(settlement, began_s, ended_s[0] if ended_s else time.monotonic())
        return settlement

    def _log_once(self, job: ClaimedJob, reason: str | None) -> None:
        """Tells the operator, because it may be the machine's fault: it may be unable to isolate programs, say."""
        if reason not in self._logged:
            self._logged.add(reason)
            is_traced = self._traces is not None and self._traces.traces(job.job_id)
            _log.info("not_verified", **log_ids(job.batch_id, job.job_id, is_traced=is_traced), reason=reason)


def _case(job: ClaimedJob, result: JobResult) -> Case:
    """Returns what is to be examined here. A job that failed is not judged.

    An answer that a model has judged is compared with the reference as well, if there is one. The judge read all of the
    text, and the answer is yet to be found in it.
    """
    reference = job.request.get("reference")
    if result.error is not None:
        return Case(None, result.answer, reference)
    if not _is_judged(job):
        return Case(job.request.get("verifier"), result.answer, reference)
    answer = None if result.answer is None else extract(result.answer)
    return Case(None if reference is None else _CHECK, answer, reference)


def _is_judged(job: ClaimedJob) -> bool:
    return (job.request.get("verifier") or {}).get("name") == "judge"


def _judged(result: JobResult) -> Judgement:
    if result.judged is None:
        return Judgement(Verdict.UNVERIFIED, "the judge gave no verdict")
    return Judgement.of(result.judged, "the judge called the answer wrong")


def _settlement(result: JobResult, judgement: Judgement, checked: Verdict | None) -> Settlement:
    has_failed = result.error is not None
    return Settlement(
        job_id=result.job_id,
        state=JobState.FAILED if has_failed else JobState.COMPLETED,
        verdict=None if has_failed else judgement.verdict,
        checked=checked,
        answer=result.answer,
        finish_reason=result.finish_reason,
        choices=[_document(choice) for choice in result.choices],
        error=None if result.error is None else _document(result.error),
        usage=result.usage,
        tree=result.tree,
        learned=result.learned,
        first_token_ms=result.first_token_ms,
        first_visible_token_ms=result.first_visible_token_ms,
        ended_ms=result.ended_ms,
    )


def _document(part: Choice | JobError) -> Document:
    """Returns its fields without copying them, unlike `dataclasses.asdict`: log-probabilities are long."""
    return {field.name: getattr(part, field.name) for field in fields(part)}
