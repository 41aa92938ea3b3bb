"""A fault: its subject, its effect, how long it lasts, and how one sees that it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from fault_injection.service import Service
from fault_injection.testbed import Testbed
from fault_injection.workload import Workload


@dataclass(frozen=True, slots=True)
class Scene:
    """The surroundings of a fault. victim: the service that it hurts, if it hurts one."""

    testbed: Testbed
    workload: Workload
    victim: Service | None
    rng: Random

    @property
    def worker(self) -> Service:
        assert self.victim is not None, "this fault hurts a service"
        return self.victim


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A fault under way. `heal` is called after `lasts_s`; `is_over` from the first moment on until it says yes."""

    is_over: Callable[[], bool]
    lasts_s: float = 0.0
    heal: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. subject: what it hurts, which no other fault hurts meanwhile (see `Testbed.claimed`)."""

    name: str
    subject: str
    inject: Callable[[Scene], Disturbance]


def next_settled(testbed: Testbed) -> Callable[[], bool]:
    """Whether a job was settled after this call."""
    since = datetime.now(UTC)
    return lambda: bool(testbed.scalar("SELECT EXISTS (SELECT FROM trail.moves WHERE at > :since)", since=since))
