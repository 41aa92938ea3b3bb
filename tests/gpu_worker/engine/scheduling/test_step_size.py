from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from tape import Tape

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.scheduling.step_size import LONGEST_STEP_S, StepSize
from ponder_worker.engine.sequence import Priority, Sequence


@dataclass
class Machine:
    """Takes a time that is linear in a step's tokens. It is the model of a machine, not of its noise."""

    base_s: float
    per_token_s: float

    def takes_s(self, num_tokens: int) -> float:
        return self.base_s + num_tokens * self.per_token_s


@given(base_s=st.floats(0, 0.9), per_token_s=st.floats(1e-6, 0.06), most=st.sampled_from([32, 2048, 8192]))
def test_steps_are_short_on_any_machine_and_full_on_a_fast_one(base_s: float, per_token_s: float, most: int) -> None:
    machine, size = Machine(base_s, per_token_s), StepSize(most)
    times = []
    for _ in range(30):
        times.append(machine.takes_s(size.num_tokens))
        size.observe(size.num_tokens, times[-1])
    assert max(times[3:]) <= LONGEST_STEP_S
    if machine.takes_s(most) < LONGEST_STEP_S / 2:
        assert size.num_tokens == most


@given(base_s=st.floats(2.1, 4.0), per_token_s=st.floats(0, 5e-4), most=st.sampled_from([256, 2048]))
def test_steps_that_take_long_whatever_their_size_are_large(base_s: float, per_token_s: float, most: int) -> None:
    """As they do where reading the weights takes seconds: small steps would compute a few tokens in the same time."""
    machine, size = Machine(base_s, per_token_s), StepSize(most)
    num_tokens, seconds = 0, 0.0
    for _ in range(500):
        took_s = machine.takes_s(size.num_tokens)
        num_tokens, seconds = num_tokens + size.num_tokens, seconds + took_s
        size.observe(size.num_tokens, took_s)
    assert num_tokens / seconds > 0.6 * most / machine.takes_s(most)


def test_one_long_step_costs_a_fast_machine_one_smaller_step() -> None:
    size = StepSize(1024)
    for _ in range(5):
        size.observe(size.num_tokens, 0.01)
    size.observe(1024, 3600.0)
    assert size.num_tokens == 512
    size.observe(512, 0.01)
    assert size.num_tokens == 1024


def test_a_short_step_that_was_not_full_says_nothing_about_a_full_one() -> None:
    size = StepSize(1024)
    size.observe(1, 0.01)
    assert size.num_tokens == 64


def _step(scheduler: Scheduler, tape: Tape, machine: Machine) -> float:
    plan = scheduler.plan()
    took_s = machine.takes_s(plan.chunks.num_tokens)
    scheduler.step_size.observe(plan.chunks.num_tokens, took_s)
    scheduler.commit(plan, tape.run(plan))
    return took_s


def test_a_slow_machine_reads_many_long_prompts_in_short_steps() -> None:
    """Two thousand tokens would take it a minute: the worker would be taken for stuck."""
    scheduler, tape = Scheduler(PagePool(8192, 4), max_step_tokens=2048, max_sequences=256), Tape()
    machine = Machine(0.1, 0.03)
    sequences = [Sequence([index, *range(99)], 100, SamplingParams(4)) for index in range(60)]
    for sequence in sequences:
        scheduler.add(sequence)
    times = [_step(scheduler, tape, machine) for _ in range(400)]
    assert all(sequence.finish_reason for sequence in sequences)
    assert max(times[1:]) <= LONGEST_STEP_S + machine.takes_s(1), "but the first, which finds out"


def test_sequences_that_run_stay_where_the_steps_become_long_and_a_more_urgent_one_takes_one_place() -> None:
    scheduler, tape = Scheduler(PagePool(512, 4), max_step_tokens=256, max_sequences=64), Tape()
    slow, quick = Machine(0.0, 0.2), Machine(0.0, 1e-6)

    def add(number: int, priority: Priority) -> None:
        for index in range(number):
            scheduler.add(Sequence([index, 1, 2, 3], 4, SamplingParams(50), priority=priority))

    add(30, "batch")
    for _ in range(10):
        _step(scheduler, tape, quick)
    assert len(scheduler.running) == 30
    for _ in range(5):
        assert _step(scheduler, tape, slow) > LONGEST_STEP_S
    add(5, "batch")
    add(1, "interactive")
    _step(scheduler, tape, slow)
    assert [sequence.priority for sequence in scheduler.running].count("interactive") == 1
    assert (len(scheduler.running), len(scheduler.waiting)) == (30, 6)
