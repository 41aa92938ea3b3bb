"""Steps begun on a guess, over real engines with small random models, and the rule that says whether to guess."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ponder_worker.engine import Engine, SamplingParams, Sequence
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.guesses import Guesses
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.loading import Engines
from ponder_worker.engine_process.step_time import StepTime
from ponder_worker.engine_process.work_book import WorkBook

from ..searches import admitted, run


class Always(Guesses):
    def have_room(self, generator: Engine) -> bool:
        return True


def guessing(engines: Engines) -> EngineCore:
    floor = EngineCore(engines, lambda: None)
    floor.guesses = Always(floor._book)
    return floor


def answers(finished: list[dict[str, Any]]) -> list[Any]:
    assert all(entry["error"] is None for entry in finished)
    return [(entry["choices"], entry["usage"]["completion_tokens"]) for entry in finished]


def test_guesses_change_no_answer_and_each_is_hit_or_missed(engines: Engines) -> None:
    floor = guessing(engines)
    made = run(floor, [admitted(number) for number in range(6)])
    without = EngineCore(engines, lambda: None)
    without.guesses.have_room = lambda generator: False  # type: ignore[method-assign]
    assert answers(made) == answers(run(without, [admitted(number) for number in range(6)]))
    tally = floor.guesses.tally
    assert tally.speculation_hits > 0
    assert tally.speculated_tokens > 0
    nodes = [node for entry in made for node in entry["tree"]["nodes"]]
    assert sum(node["speculative"] for node in nodes) == tally.speculation_hits
    assert sum(entry["tree"]["counts"].get("misguessed_tokens", 0) for entry in made) == tally.misguessed_tokens > 0
    assert floor.guesses.num_live == 0


def weights(floor: EngineCore) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for row in floor.take_work():
        found[row["kind"]] += row["weight"]
    return found


def test_what_missed_is_booked_as_speculated_and_what_hit_as_work(engines: Engines) -> None:
    floor, without = guessing(engines), EngineCore(engines, lambda: None)
    for one in (floor, without):
        run(one, [admitted(number) for number in range(6)])
    with_guesses = weights(floor)
    flops = engines.generator.flops_per_token
    tally = floor.guesses.tally
    assert with_guesses["speculated"] >= tally.misguessed_tokens * flops > 0
    assert "speculated" not in weights(without)
    assert floor.take_work() == []


def test_the_time_of_a_guess_that_is_still_open_is_paid_when_it_is_due(engines: Engines) -> None:
    floor, taken = guessing(engines), list[dict[str, float]]()
    run(floor, [admitted(number) for number in range(6)], after_step=lambda jobs: taken.append(weights(floor)))
    taken.append(weights(floor))
    booked = sum(found["speculated"] for found in taken)
    assert booked >= floor.guesses.tally.speculated_tokens * engines.generator.flops_per_token
    assert all(weight >= 0 for found in taken for weight in found.values())


@pytest.mark.parametrize("budget", [{"dollars": 1.0}, {"deadline_s": 60.0}])
def test_under_a_limit_of_dollars_or_time_nobody_guesses(engines: Engines, budget: dict[str, float]) -> None:
    floor = guessing(engines)
    run(floor, [admitted(1, budget=budget)])
    assert (floor.guesses.tally.speculation_hits, floor.guesses.tally.speculation_misses) == (0, 0)


def test_no_step_is_computed_for_guesses_alone(engines: Engines) -> None:
    floor = guessing(engines)
    generator = engines.generator

    def look(jobs: list[Job]) -> None:
        priorities = {sequence.priority for sequence in generator._scheduler.running}
        before = generator.counters.num_steps
        if priorities == {"speculative"} and not generator._scheduler.waiting:
            if floor.has_work:
                floor.step()
            assert generator.counters.num_steps == before

    run(floor, [admitted(number) for number in range(6)], after_step=look)


def room(guesses: Guesses, num_running: int, *, free_tokens: int = 1000) -> bool:
    generator = SimpleNamespace(num_running=num_running, num_waiting=0, max_sequences=64, free_tokens=free_tokens)
    return guesses.have_room(cast("Engine", generator))


def measured(fixed_s: float, row_s: float) -> Guesses:
    guesses = Guesses(WorkBook())
    for number in range(200):
        rows = 1 + number % 16
        guesses.step_time.observe(rows, fixed_s + rows * row_s)
    return guesses


def test_guesses_pay_where_steps_cost_much_whatever_is_in_them_and_few_rows_share_that() -> None:
    guesses = measured(fixed_s=0.010, row_s=0.001)
    assert room(guesses, 4)
    assert not room(guesses, 30)
    assert not room(measured(fixed_s=0.0, row_s=0.001), 1)


def test_nobody_guesses_in_a_full_engine_or_before_steps_were_measured() -> None:
    free = measured(fixed_s=0.010, row_s=0.0)
    assert room(free, 63)
    assert not room(free, 64)
    assert not room(free, 4, free_tokens=0)
    assert not room(Guesses(WorkBook()), 1)


def test_who_misses_stops_and_tries_again_after_a_while() -> None:
    guesses = measured(fixed_s=0.010, row_s=0.001)
    sequence = Sequence([0], 1, SamplingParams(1))
    guesses.add(sequence, 1)
    sequence.tokens += [0] * 2000
    guesses.miss(sequence)
    assert not room(guesses, 4)
    assert any(room(guesses, 4) for _ in range(2000))


def test_the_time_of_a_step_is_a_line_through_the_latest() -> None:
    step_time = StepTime()
    for number in range(100):
        step_time.observe(4, 0.02)
        assert step_time.fit() is None, number
    for number in range(3000):
        rows = 1 + number % 8
        step_time.observe(rows, 0.004 + 0.0005 * rows)
    fit = step_time.fit()
    assert fit is not None
    assert fit.fixed_s == pytest.approx(0.004, rel=0.01)
    assert fit.row_s == pytest.approx(0.0005, rel=0.01)
