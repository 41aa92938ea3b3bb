"""The choice of waiting sequences for a step, and of the running ones that make way for them."""

import pytest
from tape import PAGE, Tape, TapeEngine

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Priority, Sequence
from ponder_worker.engine.step_plan import StepPlan


def request(token: int, prompt_length: int, max_tokens: int = 9, priority: Priority = "batch") -> Sequence:
    return Sequence([token] * prompt_length, prompt_length, SamplingParams(max_tokens), priority=priority)


def started(scheduler: Scheduler, *sequences: Sequence) -> Tape:
    """Adds the sequences and commits one step."""
    tape = Tape()
    for sequence in sequences:
        scheduler.add(sequence)
    plan = scheduler.plan()
    scheduler.commit(plan, tape.run(plan))
    return tape


def sequences_of(plan: StepPlan) -> list[Sequence]:
    return plan.chunks.sequences


def test_a_full_engine_takes_a_decoding_sequence_out_of_the_step_for_an_urgent_one_and_puts_it_back_later() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=1)
    slow, urgent = request(1, 5), request(2, 5, 1, "interactive")
    tape = started(scheduler, slow)
    scheduler.add(urgent)
    plan = scheduler.plan()
    assert sequences_of(plan) == [urgent]
    assert (slow.num_computed, slow.num_steps_in_flight, slow.num_tokens_in_flight) == (0, 0, 0)
    scheduler.commit(plan, tape.run(plan))
    assert TapeEngine(scheduler, tape).finish() == [slow]
    assert len(slow.generated) == 9


@pytest.mark.parametrize("prompt_length", [PAGE - 1, 2 * PAGE - 1])
def test_a_sequence_that_completes_a_page_stays_in_the_step(prompt_length: int) -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=1)
    slow, urgent = request(1, prompt_length), request(2, 5, 1, "interactive")
    started(scheduler, slow)
    scheduler.add(urgent)
    assert sequences_of(scheduler.plan()) == [slow]


@pytest.mark.parametrize("num_left", [2, 3])
def test_a_sequence_that_prefills_stays_in_the_step(num_left: int) -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=4, max_sequences=1)
    slow, urgent = request(1, 4 + num_left), request(2, 2, 1, "interactive")
    started(scheduler, slow)
    scheduler.add(urgent)
    plan = scheduler.plan()
    assert sequences_of(plan) == [slow]
    assert plan.chunks.ends[0] - plan.chunks.starts[0] == num_left


def test_a_fork_finds_only_what_was_computed_of_a_sequence_that_was_taken_out_of_the_step() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=1)
    slow, urgent = request(1, PAGE + 1), request(2, 5, 1, "interactive")
    tape = started(scheduler, slow)
    scheduler.add(urgent)
    plan = scheduler.plan()
    scheduler.commit(plan, tape.run(plan))
    fork = Sequence([*slow.tokens, 3], len(slow.tokens) + 1, SamplingParams(1), priority="interactive")
    scheduler.add(fork)
    plan = scheduler.plan()
    assert [(chunk.sequence, chunk.start) for chunk in plan.chunks] == [(fork, PAGE + 1)]
    scheduler.commit(plan, tape.run(plan))


def test_a_sequence_makes_way_for_none_of_its_own_priority() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=1)
    first, second = request(1, 5), request(2, 5)
    started(scheduler, first)
    scheduler.add(second)
    assert sequences_of(scheduler.plan()) == [first]
    assert scheduler.counters.num_preemptions == 0


def test_the_running_sequence_that_makes_way_is_the_youngest_of_the_lowest_priority() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=64, max_sequences=3)
    old, guess, young = request(1, 5), request(2, 5, priority="background"), request(3, 5)
    started(scheduler, old, guess, young)
    for token in (4, 5):
        scheduler.add(request(token, 5, priority="interactive"))
    scheduler.plan()
    assert [sequence for sequence in (old, guess, young) if sequence not in scheduler.running] == [guess, young]


def test_a_lone_sequence_is_admitted_if_its_pages_are_just_enough() -> None:
    scheduler = Scheduler(PagePool(3, PAGE), max_step_tokens=16, max_sequences=2)
    sequence = request(1, 3 * PAGE - 2, 2)
    scheduler.add(sequence)
    assert sequences_of(scheduler.plan()) == [sequence]
    scheduler.check()


@pytest.mark.parametrize(("num_pages", "num_admitted"), [(4, 2), (3, 1)])
def test_a_sequence_is_admitted_only_beside_the_page_that_a_running_one_is_expected_to_need(
    num_pages: int, num_admitted: int
) -> None:
    scheduler = Scheduler(PagePool(num_pages, PAGE), max_step_tokens=16, max_sequences=2)
    started(scheduler, request(1, 2 * PAGE - 2))
    scheduler.add(request(2, PAGE - 1))
    assert len(sequences_of(scheduler.plan())) == num_admitted


def test_pages_found_free_count_once_towards_what_a_sequence_needs() -> None:
    """They are among the free pages, and are taken from them when the sequence shares them."""
    scheduler = Scheduler(PagePool(5, PAGE), max_step_tokens=64, max_sequences=2)
    left_behind = request(1, 4 * PAGE, 1)
    started(scheduler, left_behind)
    assert left_behind.finish_reason == "length"
    started(scheduler, request(2, PAGE - 2))
    scheduler.add(request(1, 4 * PAGE, 1))
    plan = scheduler.plan()
    scheduler.check()
    assert len(sequences_of(plan)) == 1


def test_admission_ends_when_the_tokens_of_the_step_are_used_up() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=8, max_sequences=8)
    for token in range(3):
        scheduler.add(request(token, 6))
    plan = scheduler.plan()
    assert [end - start for start, end in zip(plan.chunks.starts, plan.chunks.ends, strict=True)] == [6, 2]
    assert len(scheduler.waiting) == 1


def test_a_sequence_preempted_while_a_step_computes_it_waits_until_that_step_has_ended() -> None:
    scheduler = Scheduler(PagePool(6, PAGE), max_step_tokens=16, max_sequences=2)
    tape = Tape()
    old, young = (request(token, 2 * PAGE, 14) for token in (1, 2))
    in_flight: list[tuple[StepPlan, object]] = []
    for sequence in (old, young):
        scheduler.add(sequence)
    for _ in range(60):
        plan = scheduler.plan()
        for waiting in scheduler.waiting:
            assert waiting not in sequences_of(plan)
        in_flight.append((plan, tape.run(plan)))
        if len(in_flight) > 1:
            scheduler.commit(*in_flight.pop(0))  # type: ignore[arg-type]
    assert scheduler.counters.num_preemptions > 0
    assert [len(sequence.generated) for sequence in (old, young)] == [14, 14]


@pytest.mark.parametrize(("num_pages", "num_running"), [(10, 1), (11, 2)])
def test_a_sequence_is_admitted_only_if_its_own_expected_length_fits_too(num_pages: int, num_running: int) -> None:
    scheduler = Scheduler(PagePool(num_pages, PAGE), max_step_tokens=16, max_sequences=4)
    scheduler.add(request(1, 3, 20))
    tape = Tape()
    TapeEngine(scheduler, tape).finish()  # from now on six pages are expected of a prompt of three tokens
    for token in (2, 3):
        scheduler.add(request(token, 3, 20))
    scheduler.plan()
    assert len(scheduler.running) == num_running


def test_long_prompts_with_short_answers_do_not_let_long_answers_be_expected() -> None:
    scheduler, tape = Scheduler(PagePool(12, PAGE), max_step_tokens=64, max_sequences=4), Tape()
    stops = frozenset({0, 1})  # any token
    scheduler.add(Sequence([1] * 16, 16, SamplingParams(32), stop_token_ids=stops))
    TapeEngine(scheduler, tape).finish()
    for token in (2, 3):
        scheduler.add(Sequence([token] * 16, 16, SamplingParams(32), stop_token_ids=stops))
    scheduler.plan()
    assert len(scheduler.running) == 2  # five pages each
