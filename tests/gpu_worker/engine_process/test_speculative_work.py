"""Steps begun on a guess, over real engines with small random models, and the rule that says whether to guess."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ponder.domain.state import Lane
from ponder_worker.engine import Engine, SamplingParams, Sequence
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.engine_process.speculative_work import SpeculativeWork
from ponder_worker.engine_process.step_time import StepTime
from ponder_worker.engine_process.work_book import WorkBook
from ponder_worker.protocol import JobResult

from ..searches import admitted, run


class Always(SpeculativeWork):
    def pays(self, generator: Engine) -> bool:
        return True


def guessing(engines: Engines) -> EngineCore:
    core = EngineCore(engines, lambda: None)
    core.speculation = Always(core._book, core.step_time)
    return core


def answers(results: list[JobResult]) -> list[Any]:
    """Returns texts, scores and tokens. On some processors a product rounds otherwise beside other rows."""
    assert all(result.error is None for result in results)
    return [
        (
            [replace(choice, score=round(choice.score or 0.0, 3)) for choice in result.choices],
            result.usage.completion_tokens,
        )
        for result in results
    ]


def test_guesses_change_no_answer_and_each_is_hit_or_missed(engines: Engines) -> None:
    core = guessing(engines)
    made = run(core, [admitted(number) for number in range(6)])
    without = EngineCore(engines, lambda: None)
    without.speculation.pays = lambda generator: False  # type: ignore[method-assign]
    assert answers(made) == answers(run(without, [admitted(number) for number in range(6)]))
    stats = core.speculation.stats
    assert stats.speculation_hits > 0
    assert stats.speculated_tokens > 0
    nodes = [node for result in made for node in result.tree["nodes"]]
    assert sum(node["speculative"] for node in nodes) == stats.speculation_hits
    assert sum(result.tree["counts"].get("misguessed_tokens", 0) for result in made) == stats.misguessed_tokens > 0
    assert core.speculation.num_live == 0


def test_every_sequence_of_an_interactive_job_goes_first_but_its_guesses(engines: Engines) -> None:
    core = guessing(engines)
    num_by_priority: dict[str, int] = defaultdict(int)

    def look(jobs: list[Job]) -> None:
        for sequence in core._owners:
            num_by_priority[sequence.priority] += 1
            assert (sequence.priority == "background") == (sequence in core.speculation._unbooked)

    run(core, [admitted(number, lane=Lane.INTERACTIVE) for number in range(6)], after_step=look)
    assert core.speculation.stats.speculation_hits > 0
    assert num_by_priority.keys() == {"interactive", "background"}
    assert num_by_priority["interactive"] > 0


def weights(core: EngineCore) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for work in core.take_work():
        found[work.kind] += work.weight
    return found


def test_what_missed_is_booked_as_speculated_and_what_hit_as_work(engines: Engines) -> None:
    core, without = guessing(engines), EngineCore(engines, lambda: None)
    for one in (core, without):
        run(one, [admitted(number) for number in range(6)])
    with_guesses = weights(core)
    flops = engines.generator.flops_per_token
    stats = core.speculation.stats
    assert with_guesses["speculated"] >= stats.misguessed_tokens * flops > 0
    assert "speculated" not in weights(without)
    assert core.take_work() == ()


def test_the_time_of_a_guess_that_is_still_open_is_paid_when_it_is_due(engines: Engines) -> None:
    core, taken = guessing(engines), list[dict[str, float]]()
    run(core, [admitted(number) for number in range(6)], after_step=lambda jobs: taken.append(weights(core)))
    taken.append(weights(core))
    booked = sum(found["speculated"] for found in taken)
    assert booked >= core.speculation.stats.speculated_tokens * engines.generator.flops_per_token
    assert all(weight >= 0 for found in taken for weight in found.values())


@pytest.mark.parametrize("budget", [{"dollars": 1.0}, {"deadline_s": 60.0}])
def test_under_a_limit_of_dollars_or_time_nobody_guesses(engines: Engines, budget: dict[str, float]) -> None:
    core = guessing(engines)
    run(core, [admitted(1, budget=budget)])
    assert (core.speculation.stats.speculation_hits, core.speculation.stats.speculation_misses) == (0, 0)


def test_no_step_is_computed_for_guesses_alone(engines: Engines) -> None:
    core = guessing(engines)
    generator = engines.generator

    def look(jobs: list[Job]) -> None:
        priorities = {sequence.priority for sequence in generator._scheduler.running}
        before = generator.counters.num_steps
        if priorities == {"background"} and not generator._scheduler.waiting:
            if core.has_work:
                core.step()
            assert generator.counters.num_steps == before

    run(core, [admitted(number) for number in range(6)], after_step=look)


def room(guesses: SpeculativeWork, num_running: int, *, free_tokens: int = 1000) -> bool:
    generator = SimpleNamespace(num_running=num_running, num_waiting=0, max_sequences=64, free_tokens=free_tokens)
    return guesses.pays(cast("Engine", generator))


def measured(fixed_s: float, row_s: float) -> SpeculativeWork:
    step_time = StepTime()
    for number in range(200):
        rows = 1 + number % 16
        step_time.observe(rows, fixed_s + rows * row_s)
    return SpeculativeWork(WorkBook(), step_time)


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
    assert not room(SpeculativeWork(WorkBook(), StepTime()), 1)


def test_who_misses_stops_and_tries_again_after_a_while() -> None:
    guesses = measured(fixed_s=0.010, row_s=0.001)
    sequence = Sequence([0], 1, SamplingParams(1))
    guesses.add(sequence, 1)
    sequence.tokens += [0] * 2000
    guesses.miss(sequence)
    assert not room(guesses, 4)
    assert any(room(guesses, 4) for _ in range(2000))
