"""A way to run a simulated fleet, and what came of it."""

from dataclasses import dataclass
from enum import Enum
from random import Random

from ponder.settings import Settings
from ponder_worker.parent.departure import GONE_WITHIN_S


class Kept(Enum):
    """What is left of a job whose worker goes away before the job is done."""

    TOKENS = "tokens"
    SAMPLES = "finished samples"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to run the fleet.

    hears_notices: a worker knows that its machine will be taken away. hands_back: it then leaves at once; otherwise it
    finishes what it can in the time that is left, and is given all the time it needs when it is drained.
    """

    name: str
    markets: tuple[str, ...] = ("on_demand", "spot")
    kept: Kept = Kept.TOKENS
    hears_notices: bool = True
    hands_back: bool = True


SCALE = 16
"""A worker has so many times fewer slots than a real one would have, and its shards are as much smaller."""


@dataclass(frozen=True, slots=True)
class Times:
    """The times of the product, and the tokens of its shards.

    interval_s: between two turns of the autoscaler. It is much shorter by default, but the plan reckons with this one.
    """

    tick_s: float = Settings.model_fields["tick_s"].default
    lease_s: float = Settings.model_fields["lease_s"].default
    interval_s: float = 60.0
    cool_down_s: float = Settings.model_fields["fleet_cool_down_s"].default
    drain_s: float = 120.0
    drain_grace_s: float = 10.0
    gone_within_s: float = GONE_WITHIN_S
    shard_tokens: int = Settings.model_fields["shard_tokens"].default // SCALE


@dataclass(frozen=True, slots=True)
class Takings:
    """Moments at which one worker is taken, whichever it is: by kill -9 or with a notice at that moment."""

    times_s: tuple[float, ...]
    noticed: float
    """The share of those with a notice."""
    chance: Random


@dataclass(slots=True, eq=False)
class Recovery:
    """A worker that was taken away: when others had gone on with all of its jobs, or None if it held none."""

    taken_s: float
    with_notice: bool
    resumed_s: float | None = None


@dataclass(slots=True)
class Account:
    """GPU seconds of all workers by what became of them, and dollars."""

    useful_s: float = 0.0
    recomputed_s: float = 0.0
    lost_s: float = 0.0
    expired_s: float = 0.0
    loading_s: float = 0.0
    booting_s: float = 0.0
    """The part of `loading_s` before workers register, which the platform does not see."""
    leases_s: float = 0.0
    """From deaths until the leases end, which the platform bills as lost. It is no part of `billed_s`."""
    billed_s: float = 0.0
    nanodollars: float = 0.0

    @property
    def idle_s(self) -> float:
        return self.billed_s - self.loading_s - self.busy_s

    @property
    def wasted_s(self) -> float:
        return self.recomputed_s + self.lost_s

    @property
    def busy_s(self) -> float:
        return self.useful_s + self.recomputed_s + self.lost_s + self.expired_s


@dataclass(frozen=True, slots=True)
class Moment:
    """The fleet at one turn of the autoscaler."""

    at_s: float
    num_spot: int
    num_on_demand: int
    num_nodes: int
    backlog_tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an arm made of a load on a trace. `missed`: the numbers of the jobs that were not done in time."""

    account: Account
    missed: frozenset[int]
    num_jobs: int
    num_interruptions: int
    num_failed_starts: int
    num_starts: int
    num_drained: int
    moments: tuple[Moment, ...]
    recoveries: tuple[Recovery, ...]
    lasted_s: float
