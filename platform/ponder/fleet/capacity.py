"""The machines of a situation and what their workers do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ponder.fleet.fluid import Demand, Group
from ponder.fleet.ladder import HEADROOM, Fleet, Machine, Room, first_fleet, ranked
from ponder.fleet.problem import Running, Situation

INTERVAL_S = 60.0
"""The longest expected time between two plans."""
_HOUR_S = 3_600.0


def machines_of(situation: Situation) -> list[Machine]:
    """Returns the offers with the live workers on them. A spot worker that is interrupted has to load again."""
    running = {(one.machine, one.market): one for one in situation.running}
    found = []
    for offer in situation.offers:
        live = running.get((offer.machine, offer.market), Running(offer.machine, offer.market, 0))
        share = 1 / (1 + offer.interruptions_per_hour * offer.loading_s / _HOUR_S)
        if offer.tokens_per_s > 0 and (offer.may_start or live.num_workers):
            found.append(
                Machine(
                    offer.machine, offer.market, offer.nanodollars_per_hour, offer.tokens_per_s * share,
                    offer.loading_s, live.num_workers, live.num_loading, live.ready_in_s, offer.may_start,
                )
            )  # fmt: skip
    return found


def groups_of(fleet: Fleet) -> list[Group]:
    """Returns the workers of a fleet by when they are ready."""
    return [group for machine, number in fleet.items() for group in machine.groups(number)]


def reachable(demand: Demand, machines: Sequence[Machine]) -> Demand:
    """Returns the work with a later due time for what neither live workers nor new ones would do in time.

    Live workers are taken for slower by the headroom that fleets are sized for, which they would otherwise never have.
    """
    soonest_s = min((machine.loading_s for machine in machines), default=0.0)
    live = [
        replace(group, tokens_per_s=group.tokens_per_s / HEADROOM)
        for machine in machines
        for group in machine.groups(machine.num_running)
    ]
    return demand.reachable(live, soonest_s, 2 * soonest_s + INTERVAL_S)


def live_groups(situation: Situation) -> list[Group] | None:
    """Returns what the live workers do, those that are loading included, or None if one is on an unmeasured machine."""
    measured = {(offer.machine, offer.market) for offer in situation.offers}
    if any((one.machine, one.market) not in measured for one in situation.running):
        return None
    return [group for machine in machines_of(situation) for group in machine.groups(machine.num_running)]


def workers_needed(situation: Situation) -> int | None:
    """Returns how many workers of the cheapest machine would do all work in time, or None if none would."""
    machines = machines_of(situation)
    demand = Demand.of((load.due_in_s, load.tokens) for load in situation.loads)
    in_time = [due for due in demand.dues_s if any(machine.price_by(due) < math.inf for machine in machines)]
    fleet = first_fleet(ranked(machines, min(in_time, default=math.inf)), Room(), demand, groups_of)
    return sum(fleet.values()) if demand.is_met(groups_of(fleet)) else None
