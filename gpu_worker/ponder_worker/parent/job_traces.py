"""The traces of the jobs that this incarnation holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ponder.jobs.claim import Claim, ClaimedJob
from ponder.jobs.tick_report import Settlement
from ponder.jobs.tracing.origin import Origin
from ponder.trace import Attributes, Span, Tracer, attempt_span, job_span, span_of, trace_of
from ponder_worker.parent.registration import Identity
from ponder_worker.protocol import EndedSpan

Outcome = Literal["settled", "preempted", "handed_on", "dropped"]


@dataclass(frozen=True, slots=True)
class _Held:
    """A traced job. clock_s: Postgres's Unix time less the monotonic clock, in which all its spans are told, so that
    none seems to end before it began. claimed_s: by the monotonic clock.
    """

    trace_id: int
    attempt_id: int
    clock_s: float
    claimed_s: float
    origin: Origin
    about: Attributes
    strategy: str | None
    has_verifier: bool


class JobTraces:
    """Exports the spans of traced jobs. Used by the intake's thread and the heartbeat's."""

    def __init__(self, tracer: Tracer, identity: Identity) -> None:
        self._tracer = tracer
        self._identity = identity
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._judged_s: dict[int, float] = {}
        self._gone: dict[int, _Held] = {}
        """Jobs that were dropped since the last report: the next one tells their last spans."""

    def claim(self, claimed: Claim, origin: Origin, *, began_s: float) -> dict[int, int]:
        """Holds the traced jobs of a claim that began at `began_s`. Returns the spans of their attempts."""
        ended_s = time.monotonic()
        clock_s = claimed.now.timestamp() - ended_s
        held = {}
        for job in claimed.jobs:
            trace_id = trace_of(job.batch_id, job.job_id)
            if self._tracer.samples(trace_id):
                held[job.job_id] = _Held(
                    trace_id,
                    attempt_span(trace_id, claimed.shard_id, self._identity.id),
                    clock_s,
                    began_s,
                    origin,
                    self._about(job),
                    (job.request.get("strategy") or {}).get("name"),
                    job.request.get("verifier") is not None,
                )
        with self._lock:
            self._held |= held
        for job_id, one in held.items():
            self._export_claim(job_id, one, ended_s)
        return {job_id: one.attempt_id for job_id, one in held.items()}

    def traces(self, job_id: int) -> bool:
        return job_id in self._held

    def add(self, spans: Iterable[EndedSpan]) -> None:
        """Exports what a report of the engine process tells."""
        for span in spans:
            one = self._held.get(span.job_id) or self._gone.get(span.job_id)
            if one is not None:
                self._export(
                    one, span.name, span.parent_id, span.began_s, span.ended_s, span_id=span.span_id, more=span.facts
                )
        with self._lock:
            self._gone = {}

    def judged(self, settlement: Settlement, began_s: float, ended_s: float) -> None:
        """Exports the verification of a finished job's answer, if it was verified here."""
        if (one := self._held.get(settlement.job_id)) is None:
            return
        self._judged_s[settlement.job_id] = ended_s
        if settlement.verdict is not None and one.has_verifier:
            more = {"ponder.verdict": settlement.verdict.value}
            self._export(one, "verification", one.attempt_id, began_s, ended_s, more=more)

    def saved(self, job_ids: Iterable[int], began_s: float) -> None:
        """Exports the tick that saved something of these jobs, and has just been confirmed."""
        ended_s = time.monotonic()
        for job_id in job_ids:
            if (one := self._held.get(job_id)) is not None:
                self._export(one, "tick", one.attempt_id, began_s, ended_s)

    def settled(self, settlement: Settlement) -> None:
        """Ends the trace of a job whose settlement has just been confirmed."""
        ended_s, usage = time.monotonic(), settlement.usage
        judged_s = self._judged_s.get(settlement.job_id, ended_s)
        if (one := self._take(settlement.job_id)) is None:
            return
        has_failed = settlement.error is not None
        state: Attributes = {
            "ponder.state": settlement.state.value,
            "ponder.verdict": settlement.verdict and settlement.verdict.value,
            "ponder.error": str((settlement.error or {}).get("code")) if has_failed else None,
        }
        self._export(one, "settlement", one.attempt_id, judged_s, ended_s, more=state)
        self._export_attempt(one, "settled", ended_s)
        tokens: Attributes = {
            "ponder.strategy": one.strategy,
            "ponder.tokens.prompt": usage.prompt_tokens,
            "ponder.tokens.completion": usage.completion_tokens,
            "ponder.tokens.thinking": usage.thinking_tokens,
            "ponder.tokens.reward": usage.reward_tokens,
            "ponder.tokens.recomputed": usage.recomputed_tokens,
        }
        self._tracer.export(
            Span(
                "job",
                one.trace_id,
                None,
                one.origin.submitted_at,
                one.clock_s + ended_s,
                span_id=job_span(one.trace_id),
                attributes={**one.about, **state, **tokens},
                links=[one.origin.traceparent],
                has_failed=has_failed,
            )
        )

    def left(self, job_ids: Iterable[int], outcome: Outcome) -> None:
        """Ends attempts at jobs that go on elsewhere, or are dropped: they have ended, or their batch was stopped."""
        ended_s = time.monotonic()
        for job_id in job_ids:
            if (one := self._take(job_id)) is not None:
                self._export_attempt(one, outcome, ended_s)

    def handed_back(self) -> None:
        """Ends all attempts: this incarnation has released what it held."""
        self.left(list(self._held), "preempted")

    def _take(self, job_id: int) -> _Held | None:
        with self._lock:
            self._judged_s.pop(job_id, None)
            one = self._held.pop(job_id, None)
            if one is not None:
                self._gone[job_id] = one
            return one

    def _about(self, job: ClaimedJob) -> Attributes:
        return {
            "ponder.job.id": f"job_{job.job_id}",
            "ponder.batch.id": job.batch_id,
            "ponder.tenant.id": job.tenant_id,
            "ponder.incarnation.id": self._identity.id,
            "ponder.model": self._identity.model,
            "ponder.machine": self._identity.machine,
            "ponder.market": self._identity.market,
        }

    def _export_claim(self, job_id: int, one: _Held, ended_s: float) -> None:
        claimed_at = one.clock_s + one.claimed_s
        ready_at = min(one.origin.ready_at.get(job_id, claimed_at), claimed_at)
        self._tracer.export(
            Span(
                "queueing",
                one.trace_id,
                job_span(one.trace_id),
                ready_at,
                claimed_at,
                span_id=span_of(one.attempt_id, "queueing"),
                attributes=one.about,
            )
        )
        self._export(one, "claim", one.attempt_id, one.claimed_s, ended_s, span_id=span_of(one.attempt_id, "claim"))

    def _export_attempt(self, one: _Held, outcome: Outcome, ended_s: float) -> None:
        more: Attributes = {"ponder.outcome": outcome, "ponder.strategy": one.strategy}
        root = job_span(one.trace_id)
        self._export(one, "attempt", root, one.claimed_s, ended_s, span_id=one.attempt_id, more=more)

    def _export(
        self,
        one: _Held,
        name: str,
        parent_id: int,
        began_s: float,
        ended_s: float,
        *,
        span_id: int | None = None,
        more: Attributes | None = None,
    ) -> None:
        began_at, ended_at = one.clock_s + began_s, one.clock_s + ended_s
        about = {**one.about, **(more or {})}
        self._tracer.export(Span(name, one.trace_id, parent_id, began_at, ended_at, span_id=span_id, attributes=about))
