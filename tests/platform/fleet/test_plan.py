"""The plan keeps bounds and deadlines, and more work never gets fewer workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ponder.errors import InvalidInput
from ponder.fleet.plan import plan
from ponder.fleet.problem import Bounds, Load, Offer, Plan, Running, Situation

_HOUR = 3_600.0
_DOLLAR = 10**9

_loads = st.lists(
    st.builds(
        Load,
        lane=st.sampled_from(["interactive", "batch"]),
        due_in_s=st.floats(1, 48 * _HOUR),
        tokens=st.integers(0, 10**9),
    ),
    max_size=4,
).map(tuple)
_offers = st.lists(
    st.builds(
        Offer,
        machine=st.sampled_from(["a", "b", "c"]),
        market=st.sampled_from(["on_demand", "spot"]),
        nanodollars_per_hour=st.integers(0, 20 * _DOLLAR),
        tokens_per_s=st.floats(1, 50_000),
        loading_s=st.floats(0, 1_200),
        interruptions_per_hour=st.floats(0, 4),
        may_start=st.booleans(),
    ),
    max_size=5,
    unique_by=lambda offer: (offer.machine, offer.market),
).map(tuple)
_running = st.lists(
    st.builds(
        lambda machine, market, number, loading, ready: Running(machine, market, number, min(loading, number), ready),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["on_demand", "spot"]),
        st.integers(0, 5),
        st.integers(0, 2),
        st.floats(0, 600),
    ),
    max_size=3,
    unique_by=lambda one: (one.machine, one.market),
).map(tuple)
_situations = st.builds(
    Situation,
    model=st.just("m"),
    fingerprint=st.just("f"),
    loads=_loads,
    offers=_offers,
    running=_running,
    occupancy=st.none() | st.floats(0, 1),
    interactive_tokens_per_s=st.just(0.0) | st.floats(0, 100_000),
)
_most = st.none() | st.integers(0, 12)
_bounds = st.builds(
    lambda least, more, dollars: Bounds(least, None if more is None else least + more, dollars),
    st.integers(0, 3),
    _most,
    st.none() | st.integers(0, 60 * _DOLLAR),
)
_ON_DEMAND = Offer("h100", "on_demand", 4 * _DOLLAR, 2_000.0, 120.0, 0.0)
_TWO_KINDS = (
    Offer("a", "on_demand", 2, 2.0, 15.0, 1.0),
    Offer("a", "spot", 0, 1.0, 0.0, 0.0),
    Offer("b", "on_demand", 1, 1.0, 0.0, 0.0),
)
"""A slow and cheap machine, and a quick one that has to load."""
_SPOT = Offer("h100", "spot", 1 * _DOLLAR, 2_000.0, 120.0, 0.2)


def _situation(*loads: Load, offers: Sequence[Offer] = (_ON_DEMAND, _SPOT), median: float = 0.0) -> Situation:
    return Situation("m", "f", loads, tuple(offers), (), None, median)


def _numbers(planned: Plan) -> dict[str, int]:
    return {wanted.market: wanted.num_workers for wanted in planned.wanted}


def _count(planned: Plan) -> int:
    return sum(wanted.num_workers for wanted in planned.wanted)


def _hourly(situation: Situation, planned: Plan) -> int:
    prices = {(offer.machine, offer.market): offer.nanodollars_per_hour for offer in situation.offers}
    return sum(prices[wanted.machine, wanted.market] * wanted.num_workers for wanted in planned.wanted)


@given(_situations, _bounds)
@settings(max_examples=150, deadline=None)
def test_bounds_hold_and_every_wanted_worker_has_a_reason(situation: Situation, bounds: Bounds) -> None:
    planned = plan(situation, bounds)
    count, hourly = _count(planned), _hourly(situation, planned)
    assert bounds.max_workers is None or count <= bounds.max_workers
    assert bounds.max_nanodollars_per_hour is None or hourly <= bounds.max_nanodollars_per_hour
    if any(offer.may_start for offer in situation.offers) and bounds.max_nanodollars_per_hour is None:
        assert count >= bounds.min_workers
    running = {(one.machine, one.market): one.num_workers for one in situation.running}
    for wanted in planned.wanted:
        (offer,) = (one for one in situation.offers if (one.machine, one.market) == (wanted.machine, wanted.market))
        assert offer.may_start or wanted.num_workers <= running[wanted.machine, wanted.market]
    assert all(wanted.reason and wanted.num_workers > 0 for wanted in planned.wanted)
    assert [one.name for one in planned.alternatives] == ["nothing", "spot only", "on-demand only", "mixed"]
    assert plan(situation, bounds) == planned


@given(_situations, _bounds, st.floats(1, 3), st.integers(0, 10**8))
@settings(max_examples=200, deadline=None)
def test_more_backlog_never_wants_fewer_workers(situation: Situation, bounds: Bounds, factor: float, more: int) -> None:
    bounds = replace(bounds, max_nanodollars_per_hour=None)
    loads = tuple(replace(load, tokens=int(load.tokens * factor) + more) for load in situation.loads if load.tokens)
    assert _count(plan(replace(situation, loads=loads), bounds)) >= _count(plan(situation, bounds))


@given(_situations, _bounds)
@settings(max_examples=50, deadline=None)
def test_no_work_wants_no_worker_beyond_the_minimum(situation: Situation, bounds: Bounds) -> None:
    loads = tuple(replace(load, tokens=0) for load in situation.loads)
    planned = plan(replace(situation, loads=loads, interactive_tokens_per_s=0.0), bounds)
    assert _count(planned) <= bounds.min_workers
    assert planned.reasons


@given(
    st.lists(
        st.builds(Load, st.just("batch"), st.floats(600, 6 * _HOUR), st.integers(1, 10**7)), min_size=1, max_size=3
    ),
    _offers,
    st.none() | st.integers(1, 8),
    st.none() | st.integers(0, 60 * _DOLLAR),
    st.sampled_from([0.0, 500.0]),
)
@example([Load("batch", 600.0, 601)], _TWO_KINDS, 1, None, 500.0)
@settings(max_examples=60, deadline=None)
def test_deadlines_are_met_without_any_spot_whenever_on_demand_alone_would_meet_them(
    loads: list[Load], offers: tuple[Offer, ...], most: int | None, dollars: int | None, median: float
) -> None:
    bounds = Bounds(max_workers=most, max_nanodollars_per_hour=dollars)
    offers = tuple(replace(offer, may_start=offer.may_start or offer.market == "on_demand") for offer in offers)
    if not any(_alone_in_time(loads, offer, bounds) for offer in offers if offer.market == "on_demand"):
        return
    situation = Situation("m", "f", tuple(loads), offers, (), None, median)
    assert _late_in_a_replay(situation, bounds, step_s=30.0) <= 1e-6 * sum(load.tokens for load in loads)


def _alone_in_time(loads: Sequence[Load], offer: Offer, bounds: Bounds) -> bool:
    """Returns whether workers on one kind of machine, as many as the bounds allow, meet all deadlines."""
    number = 1_000 if bounds.max_workers is None else bounds.max_workers
    if bounds.max_nanodollars_per_hour is not None and offer.nanodollars_per_hour:
        number = min(number, bounds.max_nanodollars_per_hour // offer.nanodollars_per_hour)

    def due_by(at: float) -> int:
        return sum(load.tokens for load in loads if load.due_in_s <= at)

    return all(
        due_by(load.due_in_s) <= number * offer.tokens_per_s * max(0.0, load.due_in_s - offer.loading_s)
        for load in loads
    )


def _late_in_a_replay(situation: Situation, bounds: Bounds, step_s: float) -> float:
    """Returns the late tokens if the plan is followed, but no spot machine is ever to be had."""
    offers = {offer.machine: offer for offer in situation.offers if offer.market == "on_demand"}
    left = sorted([load.due_in_s, float(load.tokens)] for load in situation.loads)
    ready_at: dict[str, list[float]] = {name: [] for name in offers}
    now, late = 0.0, 0.0
    while any(tokens > 1e-6 for _, tokens in left):
        running = [
            Running(name, "on_demand", len(times), sum(at > now for at in times), max([now, *times]) - now)
            for name, times in ready_at.items()
        ]
        loads = tuple(Load("batch", due - now, math.ceil(tokens)) for due, tokens in left if tokens > 1e-6)
        planned = plan(replace(situation, loads=loads, running=tuple(running)), bounds)
        wanted = {one.machine: one.num_workers for one in planned.wanted if one.market == "on_demand"}
        for name, times in ready_at.items():
            times.sort()
            del times[wanted.get(name, 0) :]
            times += [now + offers[name].loading_s] * (wanted.get(name, 0) - len(times))
        until = min([now + step_s, *(due for due, tokens in left if tokens > 1e-6)])
        made = sum(
            offers[name].tokens_per_s * max(0.0, until - max(now, at))
            for name, times in ready_at.items()
            for at in times
        )
        for load in left:
            done = min(load[1], made)
            load[1], made = load[1] - done, made - done
            if load[0] <= until and load[1] > 0:
                late, load[1] = late + load[1], 0.0
        now = max(until, now + 1e-3)
    return late


def test_spot_does_what_has_time() -> None:
    planned = plan(_situation(Load("batch", 24 * _HOUR, 100_000_000)), Bounds())
    assert _numbers(planned) == {"spot": 1}
    assert "100,000,000 tokens" in planned.wanted[0].reason


def test_on_demand_steps_in_when_slack_is_short() -> None:
    hurried = plan(_situation(Load("batch", 400, 1_000_000)), Bounds(max_workers=4))
    assert "on_demand" in _numbers(hurried)
    assert "could start 5 min later" in hurried.wanted[0].reason


def test_a_live_spot_worker_is_trusted_with_what_it_does_soon() -> None:
    short = _situation(Load("batch", 300, 100_000))
    assert "on_demand" in _numbers(plan(short, Bounds()))
    live = replace(short, running=(Running("h100", "spot", 1),))
    assert _numbers(plan(live, Bounds())) == {"spot": 1}
    more = replace(live, loads=(Load("batch", 1_000, 2_300_000),))
    assert _numbers(plan(more, Bounds(max_workers=2))) == {"spot": 2}
    shaky = replace(more, offers=(_ON_DEMAND, replace(_SPOT, interruptions_per_hour=4.0)))
    assert "on_demand" in _numbers(plan(shaky, Bounds(max_workers=2)))


def test_on_demand_workers_stay_until_there_is_twice_as_much_slack() -> None:
    work = _situation(Load("batch", 1_200, 2_300_000))
    switched = replace(work, running=(Running("h100", "on_demand", 1),))
    assert "on_demand" not in _numbers(plan(work, Bounds(max_workers=2)))
    assert "on_demand" in _numbers(plan(switched, Bounds(max_workers=2)))
    calm = replace(switched, loads=(Load("batch", 3_600, 2_300_000),))
    assert "on_demand" not in _numbers(plan(calm, Bounds(max_workers=2)))


@pytest.mark.parametrize("offers", [(_ON_DEMAND,), (_ON_DEMAND, _SPOT)])
def test_a_plan_does_not_swing_by_a_worker_where_an_estimate_does(offers: Sequence[Offer]) -> None:
    tokens = round(2 * 2_000 * 24 * _HOUR / 1.1)
    work = _situation(Load("batch", 24 * _HOUR, tokens), offers=offers)
    market = offers[-1].market
    counts, number = [], 2
    for factor in (0.97, 1.03, 0.97, 1.03, 0.97, 0.97):
        loads = (Load("batch", 24 * _HOUR, round(tokens * factor)),)
        number = _count(plan(replace(work, loads=loads, running=(Running("h100", market, number),)), Bounds()))
        counts.append(number)
    assert counts == [2, 3, 3, 3, 3, 3]
    less = replace(work, loads=(Load("batch", 24 * _HOUR, round(tokens * 0.9)),))
    assert _count(plan(replace(less, running=(Running("h100", market, 3),)), Bounds())) == 2


@given(
    st.lists(st.builds(Load, st.just("batch"), st.floats(600, 48 * _HOUR), st.integers(1, 10**9)), max_size=3),
    st.floats(1, 50_000),
    st.floats(0.92, 1),
)
@settings(max_examples=100, deadline=None)
def test_a_fleet_that_follows_the_plan_stays_when_there_turns_out_to_be_a_little_less_work(
    loads: list[Load], tokens_per_s: float, factor: float
) -> None:
    offer = replace(_SPOT, tokens_per_s=tokens_per_s, loading_s=0.0)
    work = _situation(*loads, offers=(offer,))
    number = _count(plan(work, Bounds(max_workers=50)))
    less = tuple(replace(load, tokens=math.ceil(load.tokens * factor)) for load in loads)
    running = replace(work, loads=less, running=(Running("h100", "spot", number),) if number else ())
    assert _count(plan(running, Bounds(max_workers=50))) == number


def test_work_that_nobody_can_do_in_time_is_done_soon_and_not_by_thousands() -> None:
    planned = plan(_situation(Load("batch", 60, 1_000_000)), Bounds())
    assert 1 <= _count(planned) <= 10
    assert "1,000,000 tokens will be late" in planned.reasons[0]


def test_workers_that_cannot_be_replaced_do_their_part_and_others_the_rest() -> None:
    work = _situation(Load("batch", 7_200, 7 * 2_000 * 7_000))
    spot = replace(work, running=(Running("h100", "spot", 5),))
    assert _numbers(plan(spot, Bounds(max_workers=20))) == {"spot": 8}
    scarce = replace(spot, offers=(replace(_SPOT, may_start=False), replace(_SPOT, machine="h200"), _ON_DEMAND))
    wanted = {(one.machine, one.market): one.num_workers for one in plan(scarce, Bounds(max_workers=20)).wanted}
    assert wanted == {("h100", "spot"): 5, ("h200", "spot"): 3}
    dear = replace(_ON_DEMAND, machine="h200", nanodollars_per_hour=20 * _DOLLAR, may_start=False)
    foreign = replace(work, offers=(_ON_DEMAND, dear), running=(Running("h200", "on_demand", 5),))
    wanted = {(one.machine, one.market): one.num_workers for one in plan(foreign, Bounds(max_workers=20)).wanted}
    assert wanted == {("h200", "on_demand"): 5, ("h100", "on_demand"): 3}


def test_an_on_demand_worker_that_cannot_be_replaced_does_not_let_spot_fill_the_bounds() -> None:
    foreign = replace(
        _situation(Load("batch", 24 * _HOUR, 300_000_000), offers=(replace(_ON_DEMAND, may_start=False), _SPOT)),
        running=(Running("h100", "on_demand", 1),),
    )
    assert _numbers(plan(foreign, Bounds(max_workers=20)))["spot"] == 2


def test_on_demand_workers_do_what_spot_gives_no_workers_for() -> None:
    work = replace(_situation(Load("batch", 480, 4_000_000)), running=(Running("h100", "spot", 2),))
    scarce = replace(work, offers=(replace(_SPOT, may_start=False), _ON_DEMAND))
    numbers = _numbers(plan(scarce, Bounds(max_workers=20)))
    assert numbers["spot"] == 2
    assert numbers["on_demand"] == 4


def test_spot_machines_that_are_no_cheaper_are_left_alone() -> None:
    dear = replace(_SPOT, nanodollars_per_hour=_ON_DEMAND.nanodollars_per_hour)
    planned = plan(_situation(Load("batch", 24 * _HOUR, 1_000_000), offers=(_ON_DEMAND, dear)), Bounds())
    assert _numbers(planned) == {"on_demand": 1}
    assert "no spot machine is cheaper" in planned.wanted[0].reason


@pytest.mark.parametrize(
    ("offers", "why"),
    [
        ((_ON_DEMAND, replace(_SPOT, may_start=False)), "no spot machine may be started"),
        ((_ON_DEMAND,), "the model was timed on no spot machine that has a price"),
    ],
)
def test_the_reason_for_on_demand_workers_is_true(offers: tuple[Offer, ...], why: str) -> None:
    planned = plan(_situation(Load("batch", 24 * _HOUR, 1_000_000), offers=offers), Bounds())
    assert planned.wanted[0].reason.endswith(why)


def test_people_who_wait_get_on_demand_workers_for_their_median() -> None:
    planned = plan(_situation(Load("interactive", 24 * _HOUR, 1_000), median=5_100), Bounds())
    assert _numbers(planned)["on_demand"] == 3
    assert "5,100 tokens/s" in planned.wanted[0].reason


def test_people_who_would_keep_no_half_of_a_worker_busy_are_served_by_spot() -> None:
    work = _situation(Load("interactive", 24 * _HOUR, 1_000), median=990)
    assert _numbers(plan(work, Bounds())) == {"spot": 1}
    assert _numbers(plan(replace(work, interactive_tokens_per_s=1_010.0), Bounds()))["on_demand"] == 1
    hurried = replace(work, loads=(Load("interactive", 300.0, 100_000),))
    assert "on_demand" in _numbers(plan(hurried, Bounds())), "spot is not trusted with what is due soon"


def test_a_model_that_was_timed_nowhere_is_told_to_run_first() -> None:
    planned = plan(_situation(Load("batch", 24 * _HOUR, 1_000), offers=()), Bounds(min_workers=1))
    assert planned.wanted == ()
    assert "run some first" in planned.reasons[0]


def test_full_memory_asks_for_one_more_worker_while_people_would_wait_for_longer_than_it_loads() -> None:
    waiting = Load("interactive", 24 * _HOUR, 1_000_000)
    busy = replace(_situation(waiting), running=(Running("h100", "spot", 2),), occupancy=0.9)
    assert _count(plan(busy, Bounds())) == 3
    assert _count(plan(replace(busy, occupancy=0.85), Bounds())) == 1
    loading = replace(busy, running=(Running("h100", "spot", 3, 1, 60.0),))
    assert _count(plan(loading, Bounds())) == 3, "one is on its way"
    assert _count(plan(replace(busy, loads=(replace(waiting, tokens=100_000),)), Bounds())) == 1


@pytest.mark.parametrize(("lane", "most"), [("batch", 1), ("interactive", 5)])
def test_memory_that_stays_full_asks_for_no_more_than_the_work_is_worth(lane: str, most: int) -> None:
    work = _situation(Load(lane, 22 * _HOUR, 1_000_000))
    ready, loading = 1, 0
    for turn in range(60):
        running = (Running("h100", "spot", ready + loading, loading, 60.0),)
        wanted = _count(plan(replace(work, running=running, occupancy=0.95), Bounds(max_workers=100)))
        assert wanted <= most
        if turn % 3 == 2:
            ready, loading = ready + loading, 0
        loading += max(wanted - ready - loading, 0)
    assert ready == most


def test_what_cannot_be_done_in_time_is_told_with_the_workers_that_would_do_it() -> None:
    planned = plan(_situation(Load("batch", _HOUR, 20_000_000)), Bounds(max_workers=1))
    assert any("late" in reason and "would finish in time" in reason for reason in planned.reasons)


def test_the_alternatives_say_what_each_costs() -> None:
    costs = {one.name: one for one in plan(_situation(Load("batch", 24 * _HOUR, 100_000_000)), Bounds()).alternatives}
    assert costs["nothing"].nanodollars == 0
    assert costs["nothing"].late_tokens == 100_000_000
    assert costs["nothing"].finished_in_s is None
    assert costs["spot only"].nanodollars < costs["on-demand only"].nanodollars
    assert costs["mixed"] == replace(costs["spot only"], name="mixed", workers=costs["mixed"].workers)


@pytest.mark.parametrize("numbers", [(-1, None, None), (2, 1, None), (0, None, -1)])
def test_bounds_that_contradict_themselves_are_refused(numbers: tuple[int, int | None, int | None]) -> None:
    with pytest.raises(InvalidInput):
        Bounds(*numbers)


@pytest.mark.parametrize("offers", [(_ON_DEMAND,), (_ON_DEMAND, _SPOT)])
def test_work_that_is_due_before_a_new_worker_is_ready_asks_for_none(offers: Sequence[Offer]) -> None:
    """Two workers do 20,000 tokens in five seconds, but not a tenth more, as fleets are otherwise sized for."""
    situation = replace(
        _situation(Load("interactive", 5.0, 19_900), offers=offers), running=(Running("h100", "on_demand", 2),)
    )

    planned = plan(situation, Bounds(max_workers=20))

    assert sum(_numbers(planned).values()) <= 3
