"""The contract of a provider: something that starts and stops workers where the autoscaler asks for them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from ponder.errors import PonderError


@dataclass(frozen=True, slots=True, order=True)
class Pool:
    """Interchangeable workers: of one model, on one machine of the price book, on one market."""

    model: str
    machine: str
    market: str

    def __str__(self) -> str:
        return f"{self.model} on {self.machine} ({self.market})"


@dataclass(frozen=True, slots=True)
class Order:
    """A request about one worker.

    worker: the name under which it registers, or None where the provider names it and has not yet done so.
    num_workers: the number of workers that the pool has once the request is met.
    handle: the provider's own name of what it started, as `start` returned it.
    """

    id: str
    pool: Pool
    num_workers: int
    worker: str | None = None
    handle: str | None = None


class ProviderFailed(PonderError):
    """A provider did not do what it was asked for.

    is_undone: nothing was started, so that nothing has to be stopped.
    """

    def __init__(self, message: str, *, is_undone: bool = False) -> None:
        super().__init__(message)
        self.is_undone = is_undone


class Provider(Protocol):
    """Starts and stops workers. Every method returns within a time limit and raises ProviderFailed.

    A request may be repeated, because the autoscaler may have died before it heard the answer. The second time does
    nothing.
    """

    names_workers: bool
    """Whether it chooses the names of its workers. Otherwise a worker registers under its order's id."""

    def offers(self, machine: str, market: str) -> bool:
        """Returns whether it can start workers there."""

    def start(self, order: Order) -> str | None:
        """Begins to start a worker and returns its handle, if it has one, without waiting for it to register."""

    def stop(self, order: Order) -> None:
        """Ends a worker and what it runs on. It has been drained unless there was no time. It may be gone already."""

    def workers(self, pool: Pool) -> Set[str] | None:
        """Returns the names of the pool's workers that exist, or None if it cannot tell."""

    def close(self) -> None:
        """Ends what must not outlive an active autoscaler. It may be used again if that becomes active again."""
