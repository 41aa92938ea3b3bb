"""What searches ask while they run is answered here, at once: between the engine's pipe and the judge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

from ponder.domain.state import Verdict
from ponder_worker.parent.engine_handle import Message
from ponder_worker.parent.settlement import Hear
from ponder_worker.parent.worker_capacity import WorkerCapacity
from ponder_worker.verify import Case, Judgement


class VerifierBridge:
    """Called from the thread that reads what the engine process says; the answer is sent from a thread of the judge."""

    def __init__(self, hear: Hear, holding: WorkerCapacity) -> None:
        self._hear = hear
        self._holding = holding
        self._open: dict[Future[Judgement], int] = {}
        """Whose they are. Several threads change it, one key at a time."""

    def answer(self, question: Message, send: Callable[[Mapping[str, Any]], None]) -> None:
        """Nothing for a job that is not held any more."""
        job = self._holding.get(int(question["job_id"]))
        if job is None:
            return

        def tell(heard: Future[Judgement]) -> None:
            del self._open[heard]
            if not heard.cancelled():
                send(_verdict(heard.result()) | {"job_id": question["job_id"], "number": question["number"]})

        # Nobody peeks: what a search is told depends on the reference only where the job says so.
        reference = job.request.get("reference") if job.request.get("oracle") else None
        case = Case(job.request.get("verifier"), question["answer"], reference)
        # A turn beside the one of the tenant's finished answers: those keep nobody from going on.
        future = self._hear(case, ("asked", job.tenant_id))
        self._open[future] = job.job_id
        future.add_done_callback(tell)

    def forget(self, job_ids: Collection[int]) -> None:
        """Jobs that are not held any more: what they asked takes no turn of the tenant's other jobs."""
        for future, job_id in self._open.copy().items():
            if job_id in job_ids:
                future.cancel()


def _verdict(judgement: Judgement) -> dict[str, Any]:
    """`refused` instead of a feedback where nobody can judge."""
    if judgement.verdict is Verdict.UNVERIFIED:
        return {"type": "verdict", "passed": False, "refused": judgement.reason}
    return {"type": "verdict", "passed": judgement.verdict is Verdict.PASSED, "feedback": judgement.reason or ""}
