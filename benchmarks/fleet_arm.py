"""A way to run a simulated fleet, and what came of it."""

from dataclasses import dataclass
from enum import Enum


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


@dataclass(slots=True)
class Account:
    """GPU seconds of all workers by what became of them, and dollars."""

    useful_s: float = 0.0
    recomputed_s: float = 0.0
    lost_s: float = 0.0
    expired_s: float = 0.0
    loading_s: float = 0.0
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
