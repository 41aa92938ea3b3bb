"""Answering what searches ask while they run: the bridge between the engine's pipe and the judge."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future

from ponder.domain.state import Verdict as JobVerdict
from ponder_worker.parent.settlement import Submit
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.protocol import Ask, Verdict
from ponder_worker.verify import Case, Judgement


class VerifierBridge:
    """Called from the thread that reads the engine's events; a verdict is sent from a thread of the judge."""

    def __init__(self, submit: Submit, capacity: WorkerCapacity) -> None:
        self._submit = submit
        self._capacity = capacity
        self._open: dict[Future[Judgement], int] = {}
        """The job of each open question. Several threads change it, one key at a time."""

    def answer(self, ask: Ask, send: Callable[[Verdict], None]) -> None:
        """Returns at once. Sends nothing for a job that is no longer held."""
        job = self._capacity.get(ask.job_id)
        if job is None:
            return

        def tell(future: Future[Judgement]) -> None:
            del self._open[future]
            if not future.cancelled():
                send(_verdict(ask, future.result()))

        # No peeking: what a search is told depends on the reference only where the job says `oracle: true`.
        reference = job.request.get("reference") if job.request.get("oracle") else None
        case = Case(job.request.get("verifier"), ask.answer, reference)
        # A turn of its own beside the tenant's finished jobs: a search waits for this verdict, and nothing for theirs.
        future = self._submit(case, ("asked", job.tenant_id))
        self._open[future] = job.job_id
        future.add_done_callback(tell)

    def forget(self, job_ids: Collection[int]) -> None:
        """Cancels the questions of jobs that are no longer held, so that they take no turn of the tenant's others."""
        for future, job_id in self._open.copy().items():
            if job_id in job_ids:
                future.cancel()


def _verdict(ask: Ask, judgement: Judgement) -> Verdict:
    is_judged = judgement.verdict is not JobVerdict.UNVERIFIED
    passed = judgement.verdict is JobVerdict.PASSED if is_judged else None
    return Verdict(ask.job_id, ask.number, passed, judgement.reason or "")
