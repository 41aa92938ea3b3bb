"""The plan: which workers of a model are wanted now, and why. A pure function of the situation.

Work is taken as a fluid, served by the earliest deadline first (see `fluid`). The policy, in the order in which bounds
cut it short:

1. On-demand workers for the median of the interactive load, to the nearest whole number.
2. On-demand workers for all work that is due, once spot can no longer be trusted with it: when on-demand workers that
   were started a little later would miss a deadline. This is the safety net of "Can't Be Late" (Wu et al., NSDI 2024),
   with its two changeovers of slack and as much again before it lets go.
3. Spot workers, as many as finish all work in time at their rate with interruptions, also beside those of the second
   rule: what spot does, the others need not. Those that run are kept while a little more work would need them.
4. One more worker than there are, if keys and values have filled more than 85 % of the memory for a while, none is
   loading, and it would help: the live workers would miss a deadline, or have interactive work for longer than loading
   takes. A full memory alone says little, because a batch fills any.
5. The minimum of the bounds, of the cheapest machine.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ponder.domain.money import dollars
from ponder.fleet.capacity import INTERVAL_S, groups_of, machines_of, reachable, workers_needed
from ponder.fleet.fluid import Demand, Group
from ponder.fleet.ladder import (
    HEADROOM,
    Fleet,
    Machine,
    Room,
    first_fleet,
    full_fleet,
    hourly,
    of_rate,
    ranked,
    steady_fleet,
)
from ponder.fleet.problem import Alternative, Bounds, Plan, Situation, Wanted

_MOST_OCCUPANCY = 0.85
"""More of the keys and values in use asks for another worker."""
_TRUSTED_RISK = 0.05
"""A live spot worker is trusted for the time in which it is interrupted with this probability."""
_HOUR_S = 3_600.0


def plan(situation: Situation, bounds: Bounds) -> Plan:
    """Returns the workers wanted now. Never exceeds the bounds, and falls below the minimum only for lack of offers."""
    return _Planner(situation, bounds).plan()


@dataclass(slots=True)
class _Wish:
    """The fleet that grows rule by rule, and the reasons for each kind of machine."""

    room: Room
    fleet: dict[Machine, int] = field(default_factory=lambda: defaultdict(int))
    why: dict[Machine, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, machine: Machine, number: int, reason: str) -> None:
        """Adds workers as far as there is room."""
        number = min(number, self.room.less(self.fleet).most(machine), machine.most - self.fleet.get(machine, 0))
        if number > 0:
            self.fleet[machine] += number
            self.why[machine].append(f"{number} {reason}")

    def clear(self) -> None:
        self.fleet.clear()
        self.why.clear()

    @property
    def num_workers(self) -> int:
        return sum(self.fleet.values())

    def wanted(self) -> tuple[Wanted, ...]:
        return tuple(
            Wanted(machine.name, machine.market, number, "; ".join(self.why[machine]))
            for machine, number in sorted(self.fleet.items(), key=lambda item: (item[0].market, item[0].name))
        )


class _Planner:
    """Plans for one situation within bounds."""

    def __init__(self, situation: Situation, bounds: Bounds) -> None:
        self._situation = situation
        self._bounds = bounds
        self._room = Room(bounds.max_workers, bounds.max_nanodollars_per_hour)
        machines = machines_of(situation)
        on_demand = [machine for machine in machines if machine.market != "spot"]
        self._demand = Demand.of((load.due_in_s, load.tokens) for load in situation.loads)
        dues = self._demand.dues_s
        in_time = [due for due in dues if any(machine.price_by(due) < math.inf for machine in on_demand)]
        self._on_demand = ranked(on_demand, min(in_time, default=math.inf))
        cheapest = min((machine.price_by(math.inf) for machine in on_demand if machine.may_start), default=math.inf)
        spot = [one for one in machines if one.market == "spot" and one.price_by(math.inf) < cheapest]
        self._spot = ranked(spot, max(dues, default=math.inf))
        self._is_guaranteed = True
        """Whether on-demand workers can do all work in time."""
        self._reasons: list[str] = []

    def plan(self) -> Plan:
        wish = _Wish(self._room)
        floor = self._add_floor(wish)
        self._add_safe(wish, floor)
        self._add_spot(wish, floor)
        self._add_for_occupancy(wish)
        self._add_minimum(wish)
        self._add_reasons(wish)
        return Plan(wish.wanted(), tuple(self._reasons), self._alternatives(wish))

    def _add_floor(self, wish: _Wish) -> Fleet:
        """Adds the workers for the median of the interactive load. Returns those of them that are on demand.

        One that people would keep busy for less than half of the time is dear: the other rules serve them.
        """
        median = self._situation.interactive_tokens_per_s
        machines = self._on_demand or self._spot
        if median <= 0 or not machines:
            return {}
        for machine, number in of_rate(machines, median - machines[0].tokens_per_s / 2).items():
            figures = f"the interactive load's median is {median:,.0f} tokens/s, a worker does {_rate(machine)}"
            wish.add(machine, number, f"for people who wait: {figures}")
        return dict(wish.fleet) if self._on_demand else {}

    def _add_safe(self, wish: _Wish, floor: Fleet) -> None:
        """Adds on-demand workers for the work that spot cannot be trusted with."""
        demand = reachable(self._demand, self._on_demand)
        if not self._spot:
            fleet = steady_fleet(self._on_demand, self._room, demand, groups_of, least=sum(floor.values()))
            self._add_fleet(wish, fleet, f"for {_amount(demand)}: {self._why_no_spot()}")
            return
        # What not even all workers would finish in time is no reason to pay more for the rest of it.
        lengths = range(1, len(demand.dues_s) + 1)
        length = bisect_left(
            lengths, True, key=lambda length: not self._is_safe(demand.prefix(length), floor, now=True)
        )
        self._is_guaranteed = length == len(demand.dues_s)
        due = demand.prefix(length)
        if not length or self._is_safe(due, floor, now=False):
            return
        fleet = steady_fleet(self._on_demand, self._room, due, self._with_trusted, least=sum(floor.values()))
        reason = f"spot is trusted only while on-demand workers could start {_time(self._trust_s)} later"
        self._add_fleet(wish, fleet, f"for {_amount(due)}: {reason}")

    def _add_fleet(self, wish: _Wish, fleet: Fleet, reason: str) -> None:
        """Adds what a fleet has beyond the floor, or replaces the floor if the fleet leaves no room for it."""
        if any(fleet.get(machine, 0) < number for machine, number in wish.fleet.items()):
            wish.clear()
        for machine, number in fleet.items():
            wish.add(machine, number - wish.fleet.get(machine, 0), reason)

    @property
    def _trust_s(self) -> float:
        """The slack within which spot is trusted: two changeovers, and as much again while on-demand workers run."""
        changeover_s = max(_new(machines).loading_s for machines in (self._spot, self._on_demand) if machines)
        is_switched = sum(machine.num_running for machine in self._on_demand) > 0
        return (2 * changeover_s + INTERVAL_S) * (2 if is_switched else 1)

    def _is_safe(self, due: Demand, floor: Fleet, *, now: bool) -> bool:
        """Returns whether on-demand workers alone meet all deadlines, started now or after the time of trust."""
        if not self._on_demand:
            return False
        delay_s = 0.0 if now else self._trust_s

        def groups(fleet: Fleet) -> list[Group]:
            new = [
                group
                for machine, number in fleet.items()
                for group in machine.groups(number, num_kept=None if now else floor.get(machine, 0), delay_s=delay_s)
            ]
            return [*new, *self._trusted()]

        if not now and not self._room.is_bounded and _new(self._on_demand).may_start:
            # With any number of workers, the last moment would do; this keeps half of the time for working.
            done = groups(floor)
            return all(
                sum(group.tokens(at) for group in done) >= total
                or (at - _new(self._on_demand).loading_s) / 2 >= delay_s
                for at, total in zip(due.dues_s, due.totals, strict=True)
            )
        fleet = first_fleet(self._on_demand, self._room, due, groups, least=sum(floor.values()))
        return (due if now else due.times(HEADROOM)).is_met(groups(fleet))

    def _with_trusted(self, fleet: Fleet) -> list[Group]:
        return [*groups_of(fleet), *self._trusted()]

    def _trusted(self) -> list[Group]:
        """Returns what live spot workers are trusted to do."""
        found = []
        for offer in self._situation.offers:
            machine = next((one for one in self._spot if one.name == offer.machine), None)
            if offer.market == "spot" and machine is not None and (ready := machine.num_running - machine.num_loading):
                risk = offer.interruptions_per_hour / _HOUR_S
                until_s = _TRUSTED_RISK / risk if risk > 0 else math.inf
                found.append(Group(ready, offer.tokens_per_s, until_s=until_s))
        return found

    def _add_spot(self, wish: _Wish, floor: Fleet) -> None:
        """Adds the spot workers that finish the work in time, beside the on-demand workers of the floor."""
        if not self._spot:
            return
        beside = groups_of(floor)
        demand = reachable(self._demand, self._spot)
        may_start = any(machine.may_start for machine in self._on_demand)
        if may_start and self._room.is_bounded and not self._is_guaranteed:
            # No workers could make it safe, so as many as fit make the best of it.
            fleet = full_fleet([*self._spot, *self._on_demand], self._room)
            reason = f"for {_amount(self._demand)}: not even on-demand workers within the bounds would finish in time"
        else:
            fleet = steady_fleet(self._spot, self._room, demand, lambda fleet: [*groups_of(fleet), *beside])
            reason = f"to finish {_amount(self._demand)} in time"
        for machine, number in fleet.items():
            wish.add(machine, number, f"{reason}, at {_rate(machine)} each")

    def _add_for_occupancy(self, wish: _Wish) -> None:
        occupancy, running = self._situation.occupancy, sum(one.num_workers for one in self._situation.running)
        machines = [*self._spot, *self._on_demand]
        if occupancy is None or occupancy <= _MOST_OCCUPANCY or not machines or not self._would_another_help(machines):
            return
        is_loading = any(one.num_loading for one in self._situation.running)
        number = running + (not is_loading) - wish.num_workers
        wish.add(_new(machines), number, f"for room: {occupancy:.0%} of the keys and values are in use on {running}")

    def _would_another_help(self, machines: Sequence[Machine]) -> bool:
        """Returns whether live workers would miss a deadline, or keep people waiting for longer than one more loads."""
        live = [group for machine in machines for group in machine.groups(machine.num_running)]
        if not reachable(self._demand, machines).is_met(live):
            return True
        interactive = Demand.of((math.inf, load.tokens) for load in self._situation.loads if load.lane == "interactive")
        finished_in_s = interactive.finished_in_s(live)
        return finished_in_s is None or finished_in_s > _new(machines).loading_s

    def _add_minimum(self, wish: _Wish) -> None:
        by_price = sorted([*self._on_demand, *self._spot], key=lambda one: (one.nanodollars_per_hour, one.name))
        for machine in sorted(by_price, key=lambda one: one.may_start):
            missing = self._bounds.min_workers - wish.num_workers
            if missing > 0:
                wish.add(machine, missing, f"for the minimum of {self._bounds.min_workers}")

    def _add_reasons(self, wish: _Wish) -> None:
        """Adds the reasons that concern the whole fleet."""
        if not self._on_demand and not self._spot:
            self._reasons.append("no machine that has a price has settled a job of this model yet: run some first")
        elif not self._demand.total:
            self._reasons.append(self._why_none())
        elif (late := self._demand.late_tokens(groups_of(wish.fleet))) >= 1:
            needed = workers_needed(self._situation)
            rest = f"; {needed} would finish in time" if needed is not None and needed > wish.num_workers else ""
            self._reasons.append(f"about {late:,.0f} tokens will be late within the bounds{rest}")
        hourly_cost = hourly(wish.fleet)
        self._reasons.append(
            f"{wish.num_workers} worker{'s' * (wish.num_workers != 1)}, {dollars(hourly_cost)} an hour"
        )

    def _why_no_spot(self) -> str:
        spot = [offer for offer in self._situation.offers if offer.market == "spot"]
        if not spot:
            return "the model was timed on no spot machine that has a price"
        is_offered = any(offer.may_start for offer in spot)
        return "no spot machine is cheaper" if is_offered else "no spot machine may be started"

    def _why_none(self) -> str:
        machine = _new([*self._spot, *self._on_demand])
        return (
            f"no work waits: a worker on {machine.name} ({machine.market}) that is idle for "
            f"{_time(machine.loading_s)} costs as much as loading one again"
        )

    def _alternatives(self, wish: _Wish) -> tuple[Alternative, ...]:
        spot = first_fleet(self._spot, self._room, reachable(self._demand, self._spot), groups_of)
        on_demand = first_fleet(self._on_demand, self._room, reachable(self._demand, self._on_demand), groups_of)
        named = {"nothing": {}, "spot only": spot, "on-demand only": on_demand, "mixed": wish.fleet}
        return tuple(self._alternative(name, fleet) for name, fleet in named.items())

    def _alternative(self, name: str, fleet: Fleet) -> Alternative:
        groups = groups_of(fleet)
        finished_in_s = self._demand.finished_in_s(groups)
        cost = 0.0 if finished_in_s is None else hourly(fleet) * finished_in_s / _HOUR_S
        late = math.ceil(self._demand.late_tokens(groups))
        workers = tuple(Wanted(machine.name, machine.market, number, name) for machine, number in fleet.items())
        return Alternative(name, workers, round(cost), finished_in_s, late)


def _new(machines: Sequence[Machine]) -> Machine:
    """Returns the first machine on which a worker may be started, or else the first."""
    return next((machine for machine in machines if machine.may_start), machines[0])


def _amount(demand: Demand) -> str:
    return f"{demand.total:,.0f} tokens (the first due in {_time(demand.dues_s[0])})" if demand.dues_s else "no work"


def _rate(machine: Machine) -> str:
    return f"{machine.tokens_per_s:,.0f} tokens/s"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * _HOUR_S else f"{seconds / _HOUR_S:.1f} h"
