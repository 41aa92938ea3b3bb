from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.fleet.decision import Action, Decision, Failures, History, Rules, decide
from ponder.fleet.problem import Bounds
from ponder.fleet.provider import Pool
from ponder.fleet.targets import Want, targets_of
from ponder.fleet.worker_state import Phase, Worker

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPOT, ON_DEMAND = Pool("demo", "h200", "spot"), Pool("demo", "h200", "on_demand")
OTHER = Pool("qwen", "h100", "spot")
PRICES = {SPOT: 2, ON_DEMAND: 5, OTHER: 3}
COOL = Rules(Bounds(), cool_down_s=60)


def want(pool: Pool, num_workers: int) -> Want:
    return Want(pool, num_workers, PRICES[pool], "there is work")


def worker(
    id: str | None, pool: Pool = SPOT, phase: Phase = Phase.READY, *, age_s: float = 3600, **more: object
) -> Worker:
    made = Worker(id, pool, phase, NOW - timedelta(seconds=age_s), PRICES[pool])
    return replace(made, **more)  # type: ignore[arg-type]


def history(wanted: int = 0, *, since_s: float = 120, started_s: float = 3600, pool: Pool = SPOT) -> History:
    """The same number was wanted for some time, and the last start is some time ago."""
    rounds = [(NOW - timedelta(seconds=age), {pool: wanted}) for age in range(int(since_s), 0, -5)]
    return History(rounds, {pool: NOW - timedelta(seconds=started_s)})


def actions(decisions: list[Decision]) -> list[tuple[str, str | None]]:
    return [(decision.action.value, decision.worker) for decision in decisions]


def test_what_is_missing_is_started_at_once_and_what_loads_or_belongs_to_somebody_else_is_not_missing() -> None:
    there = [worker("a", phase=Phase.STARTING, age_s=1), worker("b", phase=Phase.LOADING, age_s=9), worker(None)]
    decisions = decide([want(SPOT, 5)], there, History(), COOL, NOW)
    assert actions(decisions) == [("start", None), ("start", None)]
    assert decisions[0].reason == "there is work"


def test_a_surplus_is_drained_only_after_a_whole_cool_down() -> None:
    there = [worker("a")]
    assert actions(decide([], there, history(0, since_s=120), COOL, NOW)) == [("drain", "a")]
    assert decide([], there, history(0, since_s=40), COOL, NOW) == [], "nobody knows what was wanted a minute ago"
    assert decide([], there, history(1, since_s=120), COOL, NOW) == [], "it was wanted a moment ago"
    assert decide([], there, history(0, since_s=120, started_s=30), COOL, NOW) == [], "its pool has just grown"


def test_a_worker_may_be_idle_for_as_long_as_it_took_to_load() -> None:
    there = [worker("a", loading_s=300)]
    assert decide([], there, history(0, since_s=290), COOL, NOW) == []
    (decision,) = decide([], there, history(0, since_s=310), COOL, NOW)
    assert decision.reason == "1 was there and at most 0 wanted for 300 s; this one is idle"


def test_a_worker_stays_until_the_one_that_takes_its_place_is_ready() -> None:
    past = replace(history(1, pool=ON_DEMAND), last_starts={})
    wants = [want(ON_DEMAND, 1)]
    coming, ready = worker("new", ON_DEMAND, Phase.LOADING), worker("new", ON_DEMAND)
    assert decide(wants, [worker("old"), coming], past, COOL, NOW) == []
    assert actions(decide(wants, [worker("old"), ready], past, COOL, NOW)) == [("drain", "old")]
    only_one = replace(COOL, bounds=Bounds(max_workers=1))
    assert actions(decide(wants, [worker("old")], past, only_one, NOW)) == [("drain", "old")], "there is no room for it"


def test_the_idle_leave_before_the_busy_and_among_them_those_whose_loss_is_least() -> None:
    there = [
        worker("busy", is_busy=True, loss_nanodollars=1),
        worker("dear", loss_nanodollars=9),
        worker("cheap", loss_nanodollars=3),
        worker("busier", is_busy=True, loss_nanodollars=2),
    ]
    for wanted, leaving in ((3, ["cheap"]), (2, ["cheap", "dear"]), (1, ["busy", "cheap", "dear"])):
        decisions = decide([want(SPOT, wanted)], there, history(wanted), COOL, NOW)
        assert sorted(str(decision.worker) for decision in decisions) == leaving
        assert {decision.action for decision in decisions} == {Action.DRAIN}


def test_what_has_not_registered_cannot_be_drained_and_is_stopped() -> None:
    there = [worker("a", phase=Phase.STARTING, age_s=100), worker("b", loss_nanodollars=50)]
    assert actions(decide([want(SPOT, 1)], there, history(1), COOL, NOW)) == [("stop", "a")]


def test_a_minimum_is_kept_for_each_model_and_nobody_elses_worker_is_touched() -> None:
    rules = replace(COOL, bounds=Bounds(min_workers=1))
    assert actions(decide([], [worker("a"), worker("b")], history(), rules, NOW)) == [("drain", "a")]
    assert decide([], [worker(None), worker(None)], history(), COOL, NOW) == []


def test_bounds_that_were_lowered_are_enforced_without_a_cool_down() -> None:
    there = [worker("a", loss_nanodollars=2), worker("b", loss_nanodollars=1), worker("c", is_busy=True)]
    rules = replace(COOL, bounds=Bounds(max_workers=1))
    assert actions(decide([want(SPOT, 3)], there, history(3), rules, NOW)) == [("drain", "a"), ("drain", "b")]
    rules = replace(COOL, bounds=Bounds(max_nanodollars_per_hour=4))
    assert actions(decide([want(SPOT, 3)], there, history(3), rules, NOW)) == [("drain", "b")]


def test_the_models_take_turns_where_not_all_fit() -> None:
    wants = [want(SPOT, 5), want(OTHER, 2)]
    assert targets_of(wants, Bounds(max_workers=4)) == {SPOT: 2, OTHER: 2}
    assert targets_of(wants, Bounds(max_nanodollars_per_hour=9)) == {SPOT: 3, OTHER: 1}
    assert targets_of(wants, Bounds()) == {SPOT: 5, OTHER: 2}


def test_a_worker_that_never_registers_is_given_up_and_one_that_does_not_leave_is_stopped() -> None:
    late = worker("late", phase=Phase.STARTING, age_s=700)
    stubborn = worker("stubborn", phase=Phase.DRAINING, leave_by=NOW - timedelta(seconds=1))
    leaving = worker("leaving", phase=Phase.DRAINING, leave_by=NOW + timedelta(seconds=1))
    decisions = decide([], [late, stubborn, leaving], History(), COOL, NOW)
    assert actions(decisions) == [("give up", "late"), ("stop", "stubborn")]
    assert decisions[0].reason == "it did not register within 700 s"


@pytest.mark.parametrize(("num", "pause_s"), [(1, 5), (2, 10), (4, 40), (30, 600)])
def test_after_failures_one_worker_tries_again_and_the_pauses_grow(num: int, pause_s: float) -> None:
    failures = {SPOT: Failures(num, NOW - timedelta(seconds=pause_s - 1))}
    assert decide([want(SPOT, 3)], [], History(failures=failures), COOL, NOW) == []
    later = NOW + timedelta(seconds=2)
    assert len(decide([want(SPOT, 3)], [], History(failures=failures), COOL, later)) == 1
    trying = worker("a", phase=Phase.STARTING, age_s=1)
    assert decide([want(SPOT, 3)], [trying], History(failures=failures), COOL, later) == []


@dataclass
class Fleet:
    """A fleet in which anything may happen between two rounds."""

    rules: Rules
    workers: list[Worker] = field(default_factory=list)
    targets: list[tuple[datetime, dict[Pool, int]]] = field(default_factory=list)
    last_starts: dict[Pool, datetime] = field(default_factory=dict)
    now: datetime = NOW
    num_ordered: int = 0

    def round(self, wants: list[Want], fates: list[int]) -> None:
        self.now += timedelta(seconds=7)
        self.workers = [
            after for one, fate in zip(self.workers, fates, strict=False) if (after := self.fate(one, fate))
        ]
        before = list(self.workers)
        decisions = decide(wants, before, History(self.targets, self.last_starts), self.rules, self.now)
        self.check(before, decisions)
        for decision in decisions:
            self.carry_out(decision)
        self.targets.append((self.now, targets_of(wants, self.rules.bounds)))
        self.check_bounds()

    def fate(self, one: Worker, number: int) -> Worker | None:
        """What becomes of a worker: it dies, it makes a step, or nothing."""
        step = {Phase.STARTING: Phase.LOADING, Phase.LOADING: Phase.READY, Phase.READY: Phase.READY}.get(one.phase)
        if number == 0 or (number < 5 and step is None):
            return None
        is_busy = number % 2 == 0
        phase = step if number < 5 and step else one.phase
        return replace(one, phase=phase, is_busy=is_busy, loss_nanodollars=number, loading_s=5.0 * number)

    def carry_out(self, decision: Decision) -> None:
        if decision.action is Action.START:
            self.num_ordered += 1
            pool = decision.pool
            self.workers.append(Worker(f"w{self.num_ordered}", pool, Phase.STARTING, self.now, PRICES[pool]))
            self.last_starts[pool] = self.now
            return
        phase = Phase.DRAINING if decision.action is Action.DRAIN else Phase.STOPPING
        leave_by = self.now + timedelta(seconds=20)
        self.workers = [
            replace(one, phase=phase, leave_by=leave_by) if one.id == decision.worker else one for one in self.workers
        ]

    def check(self, before: list[Worker], decisions: list[Decision]) -> None:
        by_id = {one.id: one for one in before}
        kept = Counter(one.pool.model for one in before if one.is_staying)
        assert len({decision.worker for decision in decisions if decision.worker}) == sum(
            decision.action is not Action.START for decision in decisions
        ), "nobody is told twice"
        for decision in decisions:
            if decision.action is Action.START:
                continue
            one = by_id[decision.worker]
            if decision.action is Action.DRAIN:
                assert one.phase in (Phase.LOADING, Phase.READY)
            if decision.action is Action.STOP:
                is_overdue = one.leave_by is not None and one.leave_by <= self.now
                assert one.phase is Phase.STARTING or (one.phase is Phase.DRAINING and is_overdue), "drained before"
            if one.is_staying and decision.action is not Action.GIVE_UP:
                age = self.now - self.last_starts[one.pool]
                assert age.total_seconds() >= self.rules.cool_down_s, "no start and stop within the cool-down"
                kept[one.pool.model] -= 1
                assert kept[one.pool.model] >= self.rules.bounds.min_workers

    def check_bounds(self) -> None:
        bounds = self.rules.bounds
        assert bounds.max_workers is None or len(self.workers) <= bounds.max_workers
        cost = sum(one.nanodollars_per_hour for one in self.workers)
        assert bounds.max_nanodollars_per_hour is None or cost <= bounds.max_nanodollars_per_hour


_wants = st.lists(st.builds(want, st.sampled_from(list(PRICES)), st.integers(0, 4)), max_size=3)
_bounds = st.builds(Bounds, st.integers(0, 2), st.none() | st.integers(2, 6), st.none() | st.integers(0, 15))


@settings(max_examples=150)
@given(_bounds, st.lists(st.tuples(_wants, st.lists(st.integers(0, 20), min_size=30, max_size=30)), max_size=40))
def test_whatever_happens_the_bounds_and_the_cool_down_hold_and_nobody_is_stopped_undrained(
    bounds: Bounds, rounds: list[tuple[list[Want], list[int]]]
) -> None:
    fleet = Fleet(Rules(bounds, cool_down_s=30, register_within_s=40))
    for wants, fates in rounds:
        fleet.round(list({one.pool: one for one in wants}.values()), fates)


@given(_bounds, _wants)
def test_a_steady_want_is_met_and_then_nothing_is_decided(bounds: Bounds, wants: list[Want]) -> None:
    wants = list({one.pool: one for one in wants}.values())
    fleet = Fleet(Rules(bounds, cool_down_s=30))
    for _ in range(12):
        fleet.round(wants, [1] * 30)
    assert Counter(one.pool for one in fleet.workers) == targets_of(wants, bounds)
    assert {one.phase for one in fleet.workers} <= {Phase.READY}


_states = st.builds(
    lambda is_busy, loss, phase: {"is_busy": is_busy, "loss_nanodollars": loss, "phase": phase},
    st.booleans(),
    st.integers(0, 5),
    st.sampled_from([Phase.STARTING, Phase.LOADING, Phase.READY]),
)


@given(st.lists(_states, max_size=8), st.integers(0, 8))
def test_those_that_leave_are_idler_or_cheaper_to_lose_than_all_that_stay(
    states: list[dict[str, object]], wanted: int
) -> None:
    there = {f"w{number}": worker(f"w{number}", age_s=100, **state) for number, state in enumerate(states)}
    decisions = decide([want(SPOT, wanted)], list(there.values()), history(wanted), COOL, NOW)
    leaving = [there[decision.worker] for decision in decisions if decision.worker is not None]
    staying = [one for one in there.values() if one not in leaving]
    assert len(leaving) == max(0, len(there) - wanted)
    for one in leaving:
        assert all((one.is_busy, one.loss_nanodollars) <= (other.is_busy, other.loss_nanodollars) for other in staying)
