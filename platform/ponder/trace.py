"""Traces: one for each job. Its id follows from the ids of the job and its batch, so every process knows it.

Nothing here needs OpenTelemetry. docs/operations.md lists the spans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

Attributes = Mapping[str, str | int | float | bool | None]
"""Ids, names, counts and states; never prompts, answers or keys."""

_BITS = 64
_MASK = (1 << _BITS) - 1
_STEPS = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
"""The multipliers of MurmurHash3's finalizer, which maps 64 bits onto 64 bits one to one."""


def trace_of(batch_id: str, job_id: int) -> int:
    """Returns the id of a job's trace: 64 bits that follow from its batch, and 64 that its number is scattered over.

    Samplers that keep a share of all traces look at the last 64 bits.
    """
    return _batch_bits(batch_id) << _BITS | _scatter(job_id)


def job_in(trace_id: int) -> int:
    """Returns the number of the job that a trace is of, if it is a job's trace."""
    return _gather(trace_id & _MASK)


def trace_hex(trace_id: int) -> str:
    return f"{trace_id:032x}"


def span_of(trace_id: int, *names: object) -> int:
    """Returns the id of the span with this name, wherever it is asked for."""
    named = "/".join(map(str, (trace_hex(trace_id), *names)))
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8]) or 1


def job_span(trace_id: int) -> int:
    """Returns the id of the span `job`, the root of the job's trace."""
    return span_of(trace_id, "job")


def attempt_span(trace_id: int, shard_id: int, incarnation_id: str) -> int:
    """Returns the id of the span of a job's stay with an incarnation."""
    return span_of(trace_id, "attempt", shard_id, incarnation_id)


def log_ids(batch_id: str, job_id: int, *, is_traced: bool) -> dict[str, str | int]:
    """Returns the fields of a log line about a job."""
    ids: dict[str, str | int] = {"job": job_id, "batch": batch_id}
    return ids | {"trace": trace_hex(trace_of(batch_id, job_id))} if is_traced else ids


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span that others belong to or are linked with, as W3C's header `traceparent` names it."""

    trace_id: int
    span_id: int
    is_sampled: bool

    @classmethod
    def parse(cls, traceparent: str) -> Self:
        """Reads what `traceparent` wrote."""
        _, trace_id, span_id, flags = traceparent.split("-")
        return cls(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1))

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


@dataclass(frozen=True, slots=True)
class Span:
    """Ended work. Times are Unix times; a span that seems to end before it began has no length.

    span_id: None means any. parent_id: None for the root of a trace. links: traceparents. is_remote: whether it answers
    a request from outside.
    """

    name: str
    trace_id: int
    parent_id: int | None
    began_at: float
    ended_at: float
    span_id: int | None = None
    attributes: Attributes = field(default_factory=dict)
    links: Sequence[str] = ()
    is_remote: bool = False
    has_failed: bool = False


class Tracer(Protocol):
    """Where spans go. `export` never waits, and never raises."""

    def samples(self, trace_id: int) -> bool:
        """Returns whether spans of this trace are kept. The answer is the same in every process."""

    def receive(self, traceparent: str | None) -> tuple[TraceContext, int | None]:
        """Returns a new span for a request, and the id of the caller's span if the request named one."""

    def export(self, span: Span) -> None: ...

    def flush(self, timeout_s: float) -> None:
        """Sends what has not been sent yet, for no longer than this."""


def _batch_bits(batch_id: str) -> int:
    return int.from_bytes(hashlib.sha256(batch_id.encode()).digest()[:8])


def _scatter(value: int) -> int:
    for step in _STEPS:
        value = (value ^ value >> 33) * step & _MASK
    return value ^ value >> 33


def _gather(value: int) -> int:
    """Inverts `_scatter`. A shift by 33 of 64 bits is its own inverse."""
    for step in reversed(_STEPS):
        value = (value ^ value >> 33) * pow(step, -1, 1 << _BITS) & _MASK
    return value ^ value >> 33
