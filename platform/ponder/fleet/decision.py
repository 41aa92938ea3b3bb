"""Decides which workers to start, drain and stop: a pure function of what is wanted and what there is.

Scaling up is immediate, as far as the bounds allow. Scaling down waits for a cool-down: until fewer workers were wanted
all that time, and until the pool's last start is as long ago. It lasts at least as long as loading the worker takes:
then being idle has cost as much as loading it again would. Bounds that were lowered take effect at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from ponder.fleet.problem import Bounds
from ponder.fleet.provider import Pool
from ponder.fleet.targets import Want, fits, targets_of
from ponder.fleet.worker_state import Phase, Worker

_LONGEST_COOL_DOWN_S = 3_600.0
_SUSPECT_AFTER = 2
"""A pool with so many failed starts in a row is planned to get no more workers until it may be tried again."""


class Action(StrEnum):
    """The kinds of rows in the log. The first four are decided here; the others happen to a worker."""

    START = "start"
    DRAIN = "drain"
    STOP = "stop"
    GIVE_UP = "give up"
    READY = "ready"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Failures:
    """Starts in a row after which no worker became ready."""

    num: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class History:
    """The past, as far as decisions depend on it. `targets` are those of earlier rounds, oldest first."""

    targets: Sequence[tuple[datetime, Mapping[Pool, int]]] = ()
    last_starts: Mapping[Pool, datetime] = field(default_factory=dict)
    failures: Mapping[Pool, Failures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits on what is decided. `bounds.min_workers` holds for each of the models, the others for all together.

    models: those that are looked after, or None for all.
    """

    bounds: Bounds
    cool_down_s: float = 60.0
    register_within_s: float = 600.0
    """A worker that has not registered by then is given up."""
    retry_s: float = 5.0
    """The pause after a failed start. It doubles with each failure in a row."""
    longest_retry_s: float = 600.0
    models: frozenset[str] | None = None

    def min_of(self, model: str) -> int:
        return self.bounds.min_workers if self.models is None or model in self.models else 0

    def cool_down_of(self, worker: Worker) -> float:
        return max(self.cool_down_s, min(worker.loading_s, _LONGEST_COOL_DOWN_S))

    def may_retry_at(self, failures: Failures) -> datetime:
        pause_s = self.retry_s * 2 ** min(failures.num - 1, 20)
        return failures.last_at + timedelta(seconds=min(pause_s, self.longest_retry_s))


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of the log. `worker` is the id of an order."""

    action: Action
    pool: Pool
    reason: str
    worker: str | None = None


def suspects(history: History, rules: Rules, now: datetime) -> set[Pool]:
    """Returns the pools in which nothing may be started for now, because starts failed there."""
    return {
        pool
        for pool, failures in history.failures.items()
        if failures.num >= _SUSPECT_AFTER and now < rules.may_retry_at(failures)
    }


def remember(
    targets: deque[tuple[datetime, Mapping[Pool, int]]], latest: Mapping[Pool, int], rules: Rules, now: datetime
) -> None:
    """Adds the latest targets, and forgets those that no cool-down reaches back to."""
    targets.append((now, latest))
    begin = now - timedelta(seconds=max(rules.cool_down_s, _LONGEST_COOL_DOWN_S))
    while len(targets) > 1 and targets[1][0] <= begin:
        targets.popleft()


def decide(
    wants: Sequence[Want], workers: Sequence[Worker], history: History, rules: Rules, now: datetime
) -> list[Decision]:
    """Returns what to do now: first the end of what is over, then drains of what is too much, then starts."""
    decider = _Decider(wants, workers, history, rules, now, targets_of(wants, rules.bounds))
    over = decider.over()
    gone = {decision.worker for decision in over}
    staying = [worker for worker in workers if worker.is_staying and (worker.id is None or worker.id not in gone)]
    leaving = decider.over_bounds(staying)
    leaving |= decider.surplus([worker for worker in staying if worker.id not in leaving])
    leaves = [_leave(worker, leaving[worker.id]) for worker in staying if worker.id in leaving]
    kept = [worker for worker in staying if worker.id not in leaving]
    return [*over, *leaves, *decider.starts(kept)]


@dataclass(frozen=True, slots=True)
class _Decider:
    """The arguments of `decide`, and the targets of this round."""

    wants: Sequence[Want]
    workers: Sequence[Worker]
    history: History
    rules: Rules
    now: datetime
    targets: Mapping[Pool, int]

    def over(self) -> list[Decision]:
        """Returns the end of workers whose time is over."""
        return [end for worker in self.workers if worker.id is not None and (end := self._end(worker)) is not None]

    def _end(self, worker: Worker) -> Decision | None:
        if worker.phase is Phase.DRAINING and worker.leave_by is not None and self.now >= worker.leave_by:
            return Decision(Action.STOP, worker.pool, "it was still there at the end of its draining", worker.id)
        waited_s = (self.now - worker.ordered_at).total_seconds()
        if worker.phase is Phase.STARTING and waited_s > self.rules.register_within_s:
            return Decision(Action.GIVE_UP, worker.pool, f"it did not register within {waited_s:.0f} s", worker.id)
        return None

    def over_bounds(self, staying: Sequence[Worker]) -> dict[str | None, str]:
        """Returns the workers that must leave at once because there may not be so many, with the reason."""
        leaving: dict[str | None, str] = {}
        num, cost = len(staying), sum(worker.nanodollars_per_hour for worker in staying)
        for worker in sorted(staying, key=_cheapest_first):
            if fits(self.rules.bounds, num, cost):
                break
            if worker.id is not None:
                leaving[worker.id] = "there are more workers than the bounds allow"
                num, cost = num - 1, cost - worker.nanodollars_per_hour
        return leaving

    def surplus(self, staying: Sequence[Worker]) -> dict[str | None, str]:
        """Returns the workers that were too many for long enough, with the reason. Models keep their minimum."""
        left = list(staying)
        leaving: dict[str | None, str] = {}
        for worker in sorted(staying, key=_cheapest_first):
            num = sum(other.pool == worker.pool for other in left)
            num_of_model = sum(other.pool.model == worker.pool.model for other in left)
            cool_down_s = self.rules.cool_down_of(worker)
            wanted = self._most_wanted(worker.pool, cool_down_s)
            is_spare = num > wanted and num_of_model > self.rules.min_of(worker.pool.model)
            if worker.id is not None and is_spare and not self._is_waited_for(worker, left):
                leaving[worker.id] = (
                    f"{num} {'was' if num == 1 else 'were'} there and at most {wanted:.0f} wanted for "
                    f"{cool_down_s:.0f} s; this one is {'busy' if worker.is_busy else 'idle'}"
                )
                left.remove(worker)
        return leaving

    def _is_waited_for(self, worker: Worker, left: Sequence[Worker]) -> bool:
        """Returns whether workers of another pool that are to replace a worker that is ready are still on their way."""
        model = worker.pool.model
        same = [other for other in left if other.pool.model == model]
        num_ready = sum(other.phase is Phase.READY for other in same)
        is_coming = any(other.phase is not Phase.READY and other.pool != worker.pool for other in same)
        num_wanted = sum(num for pool, num in self.targets.items() if pool.model == model)
        return worker.phase is Phase.READY and is_coming and num_ready <= num_wanted

    def _most_wanted(self, pool: Pool, for_s: float) -> float:
        """Returns the most workers of a pool that were wanted in the last `for_s`, and infinity where it is unknown.

        A pool that has just grown wanted its workers.
        """
        begin = self.now - timedelta(seconds=for_s)
        num_before = sum(at <= begin for at, _ in self.history.targets)
        if not num_before or self.history.last_starts.get(pool, begin) > begin:
            return math.inf
        # The last targets before the window were in force when it began.
        window = islice(self.history.targets, num_before - 1, None)
        return max(targets.get(pool, 0) for targets in (self.targets, *(targets for _, targets in window)))

    def starts(self, kept: Sequence[Worker]) -> list[Decision]:
        """Returns starts up to the targets. Workers that are leaving count for the bounds, because they cost money."""
        num, cost = len(self.workers), sum(worker.nanodollars_per_hour for worker in self.workers)
        starts: list[Decision] = []
        for want in {want.pool: want for want in self.wants if want.may_start}.values():
            for _ in range(self._num_missing(want.pool, kept)):
                if fits(self.rules.bounds, num + 1, cost + want.nanodollars_per_hour):
                    starts.append(Decision(Action.START, want.pool, want.reason))
                    num, cost = num + 1, cost + want.nanodollars_per_hour
        return starts

    def _num_missing(self, pool: Pool, kept: Sequence[Worker]) -> int:
        """Returns how many workers may be started. After a failure, one must become ready before others follow."""
        there = [worker for worker in kept if worker.pool == pool]
        num_missing = max(0, self.targets.get(pool, 0) - len(there))
        failures = self.history.failures.get(pool)
        if failures is None:
            return num_missing
        is_tried = any(worker.phase in (Phase.STARTING, Phase.LOADING) for worker in there)
        return 0 if is_tried or self.now < self.rules.may_retry_at(failures) else min(num_missing, 1)


def _leave(worker: Worker, reason: str) -> Decision:
    """Returns a drain, or a stop for a worker that has not registered and cannot be asked."""
    action = Action.STOP if worker.phase is Phase.STARTING else Action.DRAIN
    return Decision(action, worker.pool, reason, worker.id)


def _cheapest_first(worker: Worker) -> tuple[bool, int, str]:
    """Orders workers by how little is lost without them: the idle ones first."""
    return worker.is_busy, worker.loss_nanodollars, worker.id or ""
