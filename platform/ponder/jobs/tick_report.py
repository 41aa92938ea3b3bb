"""The messages of a tick: a worker's report and the reply."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from ponder.domain.state import IncarnationState, JobState, Verdict

EndReason = Literal["dollars", "deadline"]
WorkKind = Literal["work", "recomputed", "speculated"]

_SAMPLED_COUNTS = (
    "prompt_tokens",
    "generated_tokens",
    "computed_tokens",
    "num_steps",
    "num_preemptions",
    "prefix_queries",
    "prefix_hits",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one job over all its attempts; `completion_tokens` is what the budget counts.

    `judge_tokens`: those of them that judges generated.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    reward_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    judge_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one job. A failed job has an `error` {code, message}, and a completed one has a verdict.

    `checked` is what comparing with the reference says of an answer that a model judged, where there is a reference.
    `learned` holds numbers by name that the job adds to its batch's sums (see `learn`), never anything from prompts.
    `first_token_ms` and `first_visible_token_ms` are milliseconds of Postgres's Unix time: when the first token came,
    and the first one outside a thought; `ended_ms` is when the search ended, before the answer was verified.
    """

    job_id: int
    state: JobState
    verdict: Verdict | None = None
    answer: str | None = None
    finish_reason: str | None = None
    choices: Sequence[Mapping[str, Any]] = ()
    error: Mapping[str, Any] | None = None
    usage: Usage = Usage()
    tree: Mapping[str, Any] = field(default_factory=dict)
    learned: Mapping[str, float] = field(default_factory=dict)
    first_token_ms: int | None = None
    first_visible_token_ms: int | None = None
    ended_ms: int | None = None
    checked: Verdict | None = None

    def __post_init__(self) -> None:
        assert all(map(math.isfinite, self.learned.values())), f"job {self.job_id} learns NaN or infinity"
        assert self.state is not JobState.PENDING, "a settlement has a final state"
        assert (self.verdict is not None) == (self.state is JobState.COMPLETED), "completed jobs carry a verdict"
        assert self.checked is None or self.verdict is not None, "only a judged answer is checked as well"

    @property
    def num_rounds(self) -> int:
        """1, and one more for each choice that a verifier refused."""
        return max(1, len(self.tree.get("rounds", ())))


@dataclass(frozen=True, slots=True)
class Work:
    """The work of the engine for one job since the last tick, in any unit that all jobs of a tick share."""

    job_id: int
    weight: float
    kind: WorkKind = "work"

    def __post_init__(self) -> None:
        assert 0 <= self.weight < math.inf, f"job {self.job_id} has the weight {self.weight}"


@dataclass(frozen=True, slots=True)
class NextStage:
    """The weights that a job goes on with, because a stage of its cascade is over."""

    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """The load of a worker's generator: what it holds now, and what it did in the `seconds` since the sample before.

    A row tells only about its own seconds, so rows of one worker can be added up, and shown one without another.
    kv_usage: the share of the pages of keys and values that sequences hold. memory_bytes: on a GPU what the process has
    allocated there, on a CPU what is resident.
    """

    seconds: float
    num_running: int
    num_waiting: int
    kv_usage: float
    memory_bytes: int
    prompt_tokens: int
    generated_tokens: int
    computed_tokens: int
    num_steps: int
    num_preemptions: int
    prefix_queries: int
    prefix_hits: int

    @classmethod
    def of(cls, before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> Self:
        """Makes a sample of an engine's metrics at the ends of its `seconds`. A metric that is not there counts as 0.

        The names are those of the worker's metrics; those of counters begin with 0 in each process.
        """
        gauges = {name: int(after.get(name, 0)) for name in ("num_running", "num_waiting", "memory_bytes")}
        counts = {name: max(0, int(after.get(name, 0) - before.get(name, 0))) for name in _SAMPLED_COUNTS}
        return cls(seconds=seconds, kv_usage=float(after.get("kv_cache_usage_perc", 0.0)), **gauges, **counts)

    @property
    def is_idle(self) -> bool:
        """Whether nothing was computed, and nothing waits to be."""
        return not (self.num_running or self.num_waiting or self.num_steps)


@dataclass(frozen=True, slots=True)
class TickReport:
    """Everything since the last tick.

    `number` counts the ticks of an incarnation from 1. After a failure that leaves open whether a tick was committed,
    send the *same* report again: a repeated number has no effect and gets the same reply. `progressed` extends the
    lease. `state` is loading, then ready, and draining once the worker stops admitting. `idle_fraction` is the share of
    the time in which nothing was runnable. `handed_on` are jobs that go on with another model; the deltas that they
    need there are in this report or in former ones.
    """

    incarnation_id: str
    number: int
    lease_s: float
    progressed: bool
    state: IncarnationState
    room_tokens: int = 0
    idle_fraction: float = 0.0
    work: Sequence[Work] = ()
    deltas: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    settled: Sequence[Settlement] = ()
    handed_on: Mapping[int, NextStage] = field(default_factory=dict)
    sample: WorkerSample | None = None

    def __post_init__(self) -> None:
        assert 0.0 <= self.idle_fraction <= 1.0, f"an idle fraction of {self.idle_fraction}"


@dataclass(frozen=True, slots=True)
class TickReply:
    """The answer to a report.

    `dropped` are jobs that are no longer held: they have ended, or were handed back because their batch is paused or
    at its budget. Stop and forget them. `ended` are jobs that reached their limit
    of dollars or time: settle them with what they have. They are repeated at each tick until they are settled.
    `learned` holds the new sums of batches whose jobs were settled now and taught something. A repeated tick gets none.
    `drain_until`: the worker was asked to take nothing more, and to be gone by then.
    """

    now: datetime
    lease_until: datetime
    dropped: tuple[int, ...] = ()
    ended: Mapping[int, EndReason] = field(default_factory=dict)
    learned: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    drain_until: datetime | None = None
