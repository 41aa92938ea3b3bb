"""The cheapest fleet of one market that does its work in time, within bounds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ponder.fleet.fluid import Demand, Group

HEADROOM = 1.1
"""Fleets are sized for so much of the work, because throughput is an estimate."""
MOST_WORKERS = 10_000
"""The most workers that are ever wanted of one machine, where no bound says less."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine on one market, and the live workers on it.

    tokens_per_s: of one worker, interruptions included. loaded_in_s: when those that are loading will be ready.
    """

    name: str
    market: str
    nanodollars_per_hour: int
    tokens_per_s: float
    loading_s: float
    num_running: int = 0
    num_loading: int = 0
    loaded_in_s: float = 0.0

    def price_by(self, horizon_s: float) -> float:
        """Returns the nano-dollars for a token if a worker that is there, or else a new one, works until then."""
        ready_s = 0.0 if self.num_running else self.loading_s
        if self.tokens_per_s <= 0 or ready_s >= horizon_s:
            return math.inf
        share = 1.0 if math.isinf(horizon_s) else 1 - ready_s / horizon_s
        return self.nanodollars_per_hour / (3_600 * self.tokens_per_s * share)

    def groups(self, num_workers: int, *, num_kept: int | None = None, delay_s: float = 0.0) -> Iterator[Group]:
        """Yields the workers of a fleet by when they are ready: those that run first, then new ones.

        Only `num_kept` running workers are used (None: all), and new ones are started after a delay.
        """
        kept = min(num_workers, self.num_running if num_kept is None else min(num_kept, self.num_running))
        ready = min(kept, self.num_running - self.num_loading)
        for number, ready_in_s in (
            (ready, 0.0),
            (kept - ready, self.loaded_in_s),
            (num_workers - kept, delay_s + self.loading_s),
        ):
            if number:
                yield Group(number, self.tokens_per_s, ready_in_s)


Fleet = Mapping[Machine, int]


@dataclass(frozen=True, slots=True)
class Room:
    """The room for workers that bounds leave. None is no bound."""

    num_workers: int | None = None
    nanodollars_per_hour: int | None = None

    @property
    def is_bounded(self) -> bool:
        return self.num_workers is not None or self.nanodollars_per_hour is not None

    def most(self, machine: Machine) -> int:
        """Returns the most workers of one machine."""
        most = MOST_WORKERS if self.num_workers is None else self.num_workers
        if self.nanodollars_per_hour is not None and machine.nanodollars_per_hour:
            most = min(most, self.nanodollars_per_hour // machine.nanodollars_per_hour)
        return max(most, 0)

    def less(self, fleet: Fleet) -> Room:
        """Returns what is left beside a fleet."""
        number = None if self.num_workers is None else self.num_workers - sum(fleet.values())
        dollars = None if self.nanodollars_per_hour is None else self.nanodollars_per_hour - hourly(fleet)
        return Room(number, dollars)

    def admits(self, fleet: Fleet) -> bool:
        return (self.num_workers is None or sum(fleet.values()) <= self.num_workers) and (
            self.nanodollars_per_hour is None or hourly(fleet) <= self.nanodollars_per_hour
        )


def hourly(fleet: Fleet) -> int:
    """Returns the nano-dollars that a fleet costs in an hour."""
    return sum(machine.nanodollars_per_hour * number for machine, number in fleet.items())


def ranked(machines: Sequence[Machine], horizon_s: float) -> list[Machine]:
    """Returns machines by the price of a token, the cheapest first; those that would load too long come last."""
    return sorted(machines, key=lambda machine: (machine.price_by(horizon_s), machine.price_by(math.inf), machine.name))


def first_fleet(
    machines: Sequence[Machine],
    room: Room,
    demand: Demand,
    groups: Callable[[Fleet], Sequence[Group]],
    *,
    least: int = 0,
) -> Fleet:
    """Returns the first fleet of a ladder that meets a demand with headroom.

    If none does, it returns the one with the fewest late tokens of those that fill the room. The ladder depends on
    machines and room alone, and no rung has fewer workers than the one before if only their number is bounded. So more
    work never gets fewer workers. It adds workers of the first machine, at least `least`; when the room is full, it
    replaces them by workers of the others.
    """
    if not machines:
        return {}
    first, most, sized = machines[0], room.most(machines[0]), demand.times(HEADROOM)
    least = min(least, most)
    number = bisect_left(range(least, most + 1), True, key=lambda number: sized.is_met(groups(_fleet({first: number}))))
    if least + number <= most:
        return _fleet({first: least + number})
    return min(_full(machines, room, least), key=lambda fleet: round(demand.late_tokens(groups(fleet)), 3))


def _full(machines: Sequence[Machine], room: Room, least: int) -> Iterator[Fleet]:
    """Yields the fleets that fill the room, in the order in which they are preferred."""
    first, most = machines[0], room.most(machines[0])
    yield _fleet({first: most})
    for other in machines[1:] if room.is_bounded else ():
        for number in range(1, most - least + 1):
            if room.admits(fleet := _fleet({first: most - number, other: number})):
                yield fleet
        yield _fleet({other: room.most(other)})


def _fleet(numbers: Fleet) -> Fleet:
    return {machine: number for machine, number in numbers.items() if number}
