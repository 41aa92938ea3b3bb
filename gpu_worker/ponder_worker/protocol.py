"""Every message between the parent process and the engine process, and their one codec.

Commands go to the engine process, events come back. A pipe carries each message as JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Discriminator, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from ponder.domain.state import Lane
from ponder.jobs.tick_report import EndReason, Usage, Work
from ponder.processor import Precision
from ponder.store.document import clean

Document = dict[str, Any]
"""JSON that is carried through as it is: a job's request, a delta of its tree, the whole tree."""
Sums = dict[str, float]
"""Numbers by name: what settled jobs have taught about a batch, see `ponder.jobs.learn`."""


class InvalidMessage(ValueError):
    """The bytes are not a message that this process knows. The error names the fields, and repeats none of the text."""


class _Strict:
    """Refuses unknown fields while decoding."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")


# Commands.


@dataclass(frozen=True, slots=True)
class AdmittedJob(_Strict):
    """A claimed job.

    deltas: its saved tree in the order in which it grew. attempt_span: the id of the span that its own spans belong to;
    None if it is not traced.
    """

    job_id: int
    tenant_id: str
    batch_id: str
    lane: Lane
    request: Document
    deltas: tuple[Document, ...] = ()
    attempt_span: int | None = None


@dataclass(frozen=True, slots=True)
class Admit(_Strict):
    """Start these jobs. A job that is here already is left alone.

    learned: the sums of their batches, by batch. former: those of their tenant's ended batches, by the batch that
    begins with them. clock_s: Postgres's Unix time less this machine's monotonic clock, which all its processes share.
    """

    jobs: tuple[AdmittedJob, ...]
    learned: dict[str, Sums] = field(default_factory=dict)
    former: dict[str, Sums] = field(default_factory=dict)
    clock_s: float | None = None
    type: Literal["admit"] = "admit"


@dataclass(frozen=True, slots=True)
class Drop(_Strict):
    """Stop these jobs and forget them; nothing more is reported about them."""

    job_ids: tuple[int, ...]
    type: Literal["drop"] = "drop"


@dataclass(frozen=True, slots=True)
class End(_Strict):
    """Settle these jobs with what there is: they have reached a limit."""

    reasons: dict[int, EndReason]
    type: Literal["end"] = "end"


@dataclass(frozen=True, slots=True)
class Learn(_Strict):
    """The new sums of some batches."""

    learned: dict[str, Sums]
    type: Literal["learn"] = "learn"


@dataclass(frozen=True, slots=True)
class Verdict(_Strict):
    """The answer to an `Ask`. `passed` is None where nobody can judge; `feedback` then says why."""

    job_id: int
    number: int
    passed: bool | None
    feedback: str = ""
    type: Literal["verdict"] = "verdict"


@dataclass(frozen=True, slots=True)
class ReportRequest(_Strict):
    """Send a `Report` after the current step."""

    type: Literal["report_request"] = "report_request"


@dataclass(frozen=True, slots=True)
class Drain(_Strict):
    """Stop at once, send the last `Report` and exit."""

    type: Literal["drain"] = "drain"


Command = Admit | Drop | End | Learn | Verdict | ReportRequest | Drain


# Events.


@dataclass(frozen=True, slots=True)
class Loading(_Strict):
    """The models are about to be read. `precisions`: of the generator, then of the reward model if there is one."""

    device: str
    precisions: tuple[Precision, ...]
    type: Literal["loading"] = "loading"


@dataclass(frozen=True, slots=True)
class Ready(_Strict):
    """The models are loaded, and jobs may be admitted."""

    fingerprint: str
    context_length: int
    has_reward_model: bool
    room_tokens: int
    type: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Failed(_Strict):
    """The models could not be loaded; the process exits."""

    message: str
    type: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Ask(_Strict):
    """A search asks its job's verifier about a candidate's answer. `number` identifies the question."""

    job_id: int
    number: int
    answer: str | None
    type: Literal["ask"] = "ask"


@dataclass(frozen=True, slots=True)
class Choice(_Strict):
    """One answer of a job.

    logprobs: those of its tokens in OpenAI's form, if the request asked for them. reasoning: the thought before the
    text, if the model thought.
    """

    text: str
    answer: str | None
    finish_reason: str
    score: float | None
    logprobs: Document | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class JobError(_Strict):
    """Why a job failed: a stable code for programs, and a message that repeats nothing of the prompt."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class JobResult(_Strict):
    """The end of a job.

    choices: the chosen one first. tree: the whole tree, beside which no deltas are needed. learned: what the job adds
    to the sums of its batch. first_token_ms, first_visible_token_ms: when the job's first token came, and its first
    one outside a thought, in milliseconds of Postgres's Unix time; None if there was none. ended_ms: when its search
    ended. judged: the verdict of the verifier `judge`; None if there is none, or if it could not be read.
    """

    job_id: int
    error: JobError | None = None
    finish_reason: str | None = None
    choices: tuple[Choice, ...] = ()
    usage: Usage = field(default_factory=Usage)
    tree: Document = field(default_factory=dict)
    learned: Sums = field(default_factory=dict)
    first_token_ms: int | None = None
    first_visible_token_ms: int | None = None
    ended_ms: int | None = None
    judged: bool | None = None

    @property
    def answer(self) -> str | None:
        return self.choices[0].answer if self.choices else None


@dataclass(frozen=True, slots=True)
class HandOn(_Strict):
    """The end of one stage of a cascade: the job goes on to the workers of these weights.

    The last delta of the job in the same report holds the stage's result.
    """

    job_id: int
    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class EndedSpan(_Strict):
    """A span of a traced job's work here. Its times are of the monotonic clock, which all processes here share.

    facts: numbers and states, by the names of their attributes.
    """

    job_id: int
    name: Literal["prefill", "round", "scoring", "verification"]
    span_id: int
    parent_id: int
    began_s: float
    ended_s: float
    facts: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Histogram(_Strict):
    """Observations per bucket, with one more bucket at the end for those above every bound, and their sum."""

    counts: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class EngineMetrics(_Strict):
    """Gauges and counters by name since the process started; those of the reward model begin with `reward_`.

    `latencies`: the generator's histograms by name, whose buckets have the upper bounds `latency_buckets_s`.
    """

    numbers: dict[str, int | float] = field(default_factory=dict)
    latencies: dict[str, Histogram] = field(default_factory=dict)
    latency_buckets_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Report(_Strict):
    """Everything since the last report.

    num_steps: engine steps, and other progress such as verdicts received. awaits_verdicts: nothing can be computed
    before a verdict arrives. idle_fraction: the share of the time in which nothing was runnable. deltas: the growth of
    trees by job. handed_on: jobs that go on elsewhere and are gone from here. num_jobs: jobs that have not finished.
    is_last: the process has been drained and exits. spans: of traced jobs.
    """

    num_steps: int
    awaits_verdicts: bool
    work: tuple[Work, ...]
    idle_fraction: float
    deltas: dict[int, Document]
    results: tuple[JobResult, ...]
    room_tokens: int
    num_jobs: int
    is_last: bool
    metrics: EngineMetrics
    handed_on: tuple[HandOn, ...] = ()
    spans: tuple[EndedSpan, ...] = ()
    type: Literal["report"] = "report"


Event = Loading | Ready | Failed | Ask | Report


# The codec.

_M = TypeVar("_M")
_NUL = re.compile(rb"(\\+)u0000")
"""Perhaps an escaped NUL: after an even number of backslashes these are just the letters u0000."""
_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Discriminator("type")])
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Discriminator("type")])
RESULT: TypeAdapter[JobResult] = TypeAdapter(JobResult)
"""Reads and writes the result of a stage, which a delta holds."""
_MESSAGES: TypeAdapter[Command | Event] = TypeAdapter(Annotated[Command | Event, Discriminator("type")])


def encode(message: Command | Event) -> bytes:
    """JSON that Postgres can store: NUL and lone surrogates become U+FFFD; NaN and infinities become null."""
    try:
        data = _MESSAGES.dump_json(message)
    except PydanticSerializationError:  # a lone surrogate
        return to_json(clean(_MESSAGES.dump_python(message)))
    # In the bytes, because to walk through a large report takes a second, for which the engines would wait.
    return _NUL.sub(_without_nul, data) if b"\\u0000" in data else data


def decode_command(data: bytes) -> Command:
    """Raises InvalidMessage."""
    return _decode(_COMMANDS, data)


def decode_event(data: bytes) -> Event:
    """Raises InvalidMessage."""
    return _decode(_EVENTS, data)


def _without_nul(found: re.Match[bytes]) -> bytes:
    return found[1] + b"ufffd" if len(found[1]) % 2 else found[0]


def _decode(adapter: TypeAdapter[_M], data: bytes) -> _M:
    if b"\\u0000" in data and _NUL.sub(_without_nul, data) != data:
        raise InvalidMessage("not a message of the protocol: it holds a NUL, which Postgres cannot store")
    try:
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'message'}: {e['msg']}" for e in error.errors())
        raise InvalidMessage(f"not a message of the protocol: {places}") from None
