"""The states of everything that has one, and the one table of legal moves."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from ponder.errors import IllegalMove


class BatchState(StrEnum):
    """The statuses of the OpenAI batch object, without `finalizing`, which takes no time here."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """The state of a job, written at submission and at settlement. Whether it runs follows from its shard."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ShardState(StrEnum):
    QUEUED = "queued"
    HELD = "held"
    FINISHED = "finished"


class IncarnationState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class AttemptOutcome(StrEnum):
    """The end of one job's stay with one incarnation."""

    SETTLED = "settled"
    PREEMPTED = "preempted"
    HANDED_ON = "handed_on"
    """The job goes on with the next model of its cascade. Like being preempted, this costs it nothing."""
    LOST = "lost"
    CANCELLED = "cancelled"


class PilotState(StrEnum):
    """The state of a batch's pilot. A waiting one needs a yes or more budget; a stopped one ended with its batch."""

    RUNNING = "running"
    WAITING = "waiting"
    PASSED = "passed"
    STOPPED = "stopped"


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"


class Lane(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"


LEGAL_MOVES: dict[type[StrEnum], dict[str, tuple[str, ...]]] = {
    BatchState: {
        "validating": ("failed", "in_progress", "cancelling", "expired"),
        "in_progress": ("completed", "cancelling", "expired"),
        "cancelling": ("cancelled",),
    },
    JobState: {"pending": ("completed", "failed", "cancelled", "expired")},
    PilotState: {"running": ("waiting", "passed", "stopped"), "waiting": ("passed", "stopped")},
    # A released shard is finished and its unsettled jobs are recut, so no shard ever changes its holder.
    ShardState: {"queued": ("held", "finished"), "held": ("finished",)},
    IncarnationState: {
        "loading": ("ready", "draining", "ended"),
        "ready": ("draining", "ended"),
        "draining": ("ended",),
    },
}

_State = TypeVar("_State", bound=StrEnum)


def move(current: _State, target: _State) -> _State:
    """Returns `target`. Raises IllegalMove if the table has no such move."""
    if target.value not in LEGAL_MOVES[type(target)].get(current.value, ()):
        raise IllegalMove(f"{type(target).__name__}: {current} cannot become {target}")
    return target


def is_final(state: StrEnum) -> bool:
    """Returns whether no move leads on from a state."""
    return state.value not in LEGAL_MOVES[type(state)]


def sources(target: StrEnum) -> list[str]:
    """Returns the states that may become `target`, for `WHERE state = ANY(:sources)`."""
    return [source for source, targets in LEGAL_MOVES[type(target)].items() if target.value in targets]
