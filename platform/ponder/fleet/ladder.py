"""The cheapest fleet of one market that does its work in time, within bounds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ponder.fleet.fluid import Demand, Group

HEADROOM = 1.1
"""Fleets are sized for so much of the work, because throughput is an estimate."""
_KEPT = 1.2
"""Workers that run are kept as long as fleets for so much of the work would have them."""
MOST_WORKERS = 10_000
"""The most workers that are ever wanted of one machine, where no bound says less."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine on one market, and the live workers on it.

    tokens_per_s: of one worker, interruptions included. loaded_in_s: when those that are loading will be ready.
    may_start: whether there may be more than those that run.
    """

    name: str
    market: str
    nanodollars_per_hour: int
    tokens_per_s: float
    loading_s: float
    num_running: int = 0
    num_loading: int = 0
    loaded_in_s: float = 0.0
    may_start: bool = True

    @property
    def most(self) -> int:
        return MOST_WORKERS if self.may_start else self.num_running

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
        most = machine.most if self.num_workers is None else min(machine.most, self.num_workers)
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
    """Returns machines by the price of a token, the cheapest first; those that would load too long come last.

    Those on which none may be started come before all others: their workers are there already.
    """
    return sorted(
        machines,
        key=lambda one: (one.may_start, one.price_by(horizon_s), one.price_by(math.inf), one.name),
    )


def filled(machines: Sequence[Machine], number: int) -> Fleet:
    """Returns a fleet of so many workers: as many as there may be of the first machine, then of the next."""
    fleet = {}
    for machine in machines:
        if some := min(number, machine.most):
            fleet[machine] = some
        number -= some
    return fleet


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
    work never gets fewer workers. It adds workers of the first machine on which there may be more, at least `least`;
    when the room is full, it replaces them by workers of the others.
    """
    if not machines:
        return {}
    most, sized = _most(machines, room), demand.times(HEADROOM)
    least = min(least, most)
    number = bisect_left(
        range(least, most + 1), True, key=lambda number: sized.is_met(groups(filled(machines, number)))
    )
    if least + number <= most:
        return filled(machines, least + number)
    return min(_full(machines, room, least), key=lambda fleet: round(demand.late_tokens(groups(fleet)), 3))


def steady_fleet(
    machines: Sequence[Machine],
    room: Room,
    demand: Demand,
    groups: Callable[[Fleet], Sequence[Group]],
    *,
    least: int = 0,
) -> Fleet:
    """Returns the first fleet of the ladder, or one with more of the workers that run.

    Between what the work needs and what a little more of it would need, as many stay as there are. So a fleet does not
    swing by a worker whenever an estimate does. What more work gets is never less.
    """
    fleet = first_fleet(machines, room, demand, groups, least=least)
    number, num_running = sum(fleet.values()), sum(machine.num_running for machine in machines)
    if number >= num_running or fleet != filled(machines, number):
        return fleet
    kept = first_fleet(machines, room, demand.times(_KEPT / HEADROOM), groups, least=least)
    return filled(machines, max(number, min(num_running, sum(kept.values()))))


def of_rate(machines: Sequence[Machine], tokens_per_s: float) -> Fleet:
    """Returns the first of the `filled` fleets that does so much, or the largest."""
    most = min(sum(machine.most for machine in machines), MOST_WORKERS)
    return filled(machines, bisect_left(range(most), True, key=lambda number: _rate(machines, number) >= tokens_per_s))


def _rate(machines: Sequence[Machine], number: int) -> float:
    return sum(machine.tokens_per_s * some for machine, some in filled(machines, number).items())


def full_fleet(machines: Sequence[Machine], room: Room) -> Fleet:
    return filled(machines, _most(machines, room))


def _most(machines: Sequence[Machine], room: Room) -> int:
    """Returns the most workers with which `filled` machines fit into a room."""
    numbers = range(1, min(sum(machine.most for machine in machines), MOST_WORKERS) + 1)
    return bisect_left(numbers, True, key=lambda number: not room.admits(filled(machines, number)))


def _full(machines: Sequence[Machine], room: Room, least: int) -> Iterator[Fleet]:
    """Yields the fleets that fill the room, in the order in which they are preferred."""
    most = _most(machines, room)
    yield full_fleet(machines, room)
    for other in machines[1:] if room.is_bounded else ():
        rest = [machine for machine in machines if machine is not other]
        for number in range(1, min(most - least, other.most) + 1):
            fleet = {**filled(rest, most - number), other: number}
            if sum(fleet.values()) == most and room.admits(fleet):
                yield fleet
        yield full_fleet([other, *rest], room)
