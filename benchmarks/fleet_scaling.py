"""The autoscaler of a simulated fleet: the product's plan and decisions, on what the simulation tells it."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fleet_machines import Machine

from ponder.fleet.decision import Decision, Failures, History, Rules, decide, remember, suspects
from ponder.fleet.plan import plan
from ponder.fleet.problem import Bounds, Load, Offer, Running, Situation
from ponder.fleet.provider import Pool
from ponder.fleet.targets import targets_of, wants_of
from ponder.fleet.worker_state import Worker

_MODEL = "model"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_PRIOR_INTERRUPTIONS, _PRIOR_HOURS = 1.0, 10.0
_STEPS_A_DOUBLING = 8


@dataclass(slots=True)
class SpotRecord:
    """What was seen of spot machines: interruptions in their hours."""

    interruptions: int = 0
    hours: float = 0.0

    @property
    def per_hour(self) -> float:
        return (_PRIOR_INTERRUPTIONS + self.interruptions) / (_PRIOR_HOURS + self.hours)


@dataclass(frozen=True, slots=True)
class Due:
    """Unsettled work of a lane with the same deadline, in estimated tokens."""

    lane: str
    due_s: float
    tokens: int


@dataclass(slots=True)
class Scaling:
    """Plans and decides as the autoscaler does, for one model on one kind of machine.

    Like the autoscaler, it starts nothing in a pool in which starts failed, until it may be tried again.
    """

    machine: Machine
    markets: tuple[str, ...]
    tokens_per_s: float
    interactive_tokens_per_s: float
    bounds: Bounds
    cool_down_s: float
    spot: SpotRecord = field(default_factory=SpotRecord)
    _targets: deque[tuple[datetime, Mapping[Pool, int]]] = field(default_factory=deque)
    _last_starts: dict[Pool, datetime] = field(default_factory=dict)
    _failures: dict[Pool, Failures] = field(default_factory=dict)

    def pool(self, market: str) -> Pool:
        return Pool(_MODEL, self.machine.name, market)

    def started(self, market: str, at_s: float) -> None:
        self._last_starts[self.pool(market)] = moment(at_s)

    def failed(self, market: str, at_s: float) -> None:
        """Notes a start after which no worker became ready."""
        pool = self.pool(market)
        before = self._failures.get(pool)
        self._failures[pool] = Failures(1 if before is None else before.num + 1, moment(at_s))

    def succeeded(self, market: str) -> None:
        self._failures.pop(self.pool(market), None)

    def turn(
        self, at_s: float, work: Iterable[Due], running: Sequence[Running], workers: Sequence[Worker],
        occupancy: float | None,
    ) -> list[Decision]:  # fmt: skip
        """Returns what the autoscaler decides now."""
        now, rules = moment(at_s), Rules(self.bounds, self.cool_down_s)
        history = History(self._targets, self._last_starts, self._failures)
        avoided = suspects(history, rules, now)
        offers = {market: self._offer(market, may_start=self.pool(market) not in avoided) for market in self.markets}
        situation = Situation(
            _MODEL, None, _loads(at_s, work), tuple(offers.values()), tuple(running), occupancy,
            self.interactive_tokens_per_s,
        )  # fmt: skip
        wants = list(wants_of(_MODEL, list(offers.values()), plan(situation, self.bounds)))
        decisions = decide(wants, workers, history, rules, now)
        remember(self._targets, targets_of(wants, self.bounds), rules, now)
        return decisions

    def _offer(self, market: str, *, may_start: bool) -> Offer:
        price = self.machine.nanodollars_per_hour[market]
        rate = self.spot.per_hour if market == "spot" else 0.0
        loading_s = self.machine.speed.loading_s
        return Offer(self.machine.name, market, price, self.tokens_per_s, loading_s, rate, may_start)


def moment(at_s: float) -> datetime:
    return _BEGIN + timedelta(seconds=at_s)


def _loads(at_s: float, work: Iterable[Due]) -> tuple[Load, ...]:
    """Adds up work that is due at about the same time, up to 9 % earlier than it is."""
    tokens: dict[tuple[float, str], int] = {}
    for due in work:
        step = math.floor(_STEPS_A_DOUBLING * math.log2(max(due.due_s - at_s, 1.0)))
        key = (2 ** (step / _STEPS_A_DOUBLING), due.lane)
        tokens[key] = tokens.get(key, 0) + due.tokens
    return tuple(Load(lane, due_s, number) for (due_s, lane), number in sorted(tokens.items()))
