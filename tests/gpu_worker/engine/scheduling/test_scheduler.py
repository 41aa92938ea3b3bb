"""The promises of the scheduler, over a runner that computes nothing."""

import random
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tape import PAGE, Tape, TapeEngine

from ponder_worker.engine.kv.kv_offload import KVOffload, OffloadCosts
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Priority, Sequence

FREE_MOVES = OffloadCosts(token_s=1.0, page_s=0.0)


def request(chance: random.Random, num_pages: int) -> Sequence:
    length = chance.randint(2, num_pages * PAGE - 1)
    prompt = [chance.randint(0, 1) for _ in range(chance.randint(1, length - 1))]
    salt = chance.choice([b"", b"", b"salt"])
    if chance.random() < 0.3:
        tokens = prompt + [1] * (length - len(prompt))
        return Sequence(tokens, chance.randint(1, length - 1), None, salt=salt)
    priority = chance.choice(get_args(Priority))
    stops = frozenset({1} if chance.random() < 0.3 else ())
    sampling = SamplingParams(length - len(prompt), presence_penalty=chance.choice([0.0, 0.0, 1.0]))
    sequence = Sequence(prompt, len(prompt), sampling, salt=salt, priority=priority, stop_token_ids=stops)
    sequence.family = chance.randint(0, 3)
    return sequence


def expected_tokens(sequence: Sequence) -> list[int]:
    """Returns the tokens of a generated sequence by the rule of the tape."""
    assert sequence.sampling is not None
    tokens = list(sequence.tokens[: sequence.prompt_length])
    for _ in range(sequence.sampling.max_tokens):
        tokens.append(sum(tokens) % 2)
        if tokens[-1] in sequence.stop_token_ids:
            break
    return tokens


@settings(max_examples=300, deadline=None)
@given(
    chance=st.randoms(use_true_random=False),
    num_pages=st.integers(1, 12),
    max_sequences=st.integers(1, 6),
    spare=st.integers(0, 12),
    num_offloaded=st.sampled_from([0, 3, 100]),
    num_steps_ahead=st.integers(0, 1),
    windows=st.sampled_from([(None,), (1,), (2,), (5,), (9,), (20,), (3, None), (1, 1, None), (7, None, None)]),
)
def test_every_request_finishes_and_finds_its_whole_context_at_every_step(
    chance: random.Random,
    num_pages: int,
    max_sequences: int,
    spare: int,
    num_offloaded: int,
    num_steps_ahead: int,
    windows: tuple[int | None, ...],
) -> None:
    budget, tape = max_sequences + spare, Tape(windows=windows)
    num_pages *= len(windows)
    offload = KVOffload(num_offloaded, FREE_MOVES, tape.offload) if num_offloaded else None
    scheduler = Scheduler(
        PagePool(num_pages, PAGE), max_step_tokens=budget, max_sequences=max_sequences, offload=offload, windows=windows
    )
    longest = min(scheduler.max_pages, 2 * num_pages + 8)
    engine, requests = (
        TapeEngine(scheduler, tape, num_steps_ahead),
        [request(chance, longest) for _ in range(chance.randint(1, 12))],
    )
    arriving = list(requests)
    cancelled: list[Sequence] = []
    for _ in range(3000):
        while arriving and chance.random() < 0.5:
            scheduler.add(arriving.pop())
        if scheduler.running and chance.random() < 0.03:
            cancelled.append(chance.choice(scheduler.running))
            scheduler.cancel(cancelled[-1])
        outputs = engine.step()
        num_tokens = sum(output.computed_tokens for output in outputs)
        assert num_tokens <= budget
        scheduler.step_size.observe(num_tokens, chance.choice([0.1, 0.1, 1.5, 3.0]))
        assert len({id(output.sequence) for output in outputs}) == len(outputs)
        if not (arriving or engine.has_work):
            break
    assert all(sequence.finish_reason is not None for sequence in requests), "a sequence starved"
    assert scheduler.pool.num_free == num_pages
    for sequence in requests:
        assert (sequence.num_steps_in_flight, sequence.num_tokens_in_flight) == (0, 0) or sequence in cancelled
        if sequence.finish_reason == "scored":
            assert len(sequence.logprobs) == len(sequence.tokens) - sequence.prompt_length
        elif sequence not in cancelled:
            assert sequence.tokens == expected_tokens(sequence)


def test_the_youngest_is_preempted_and_the_oldest_never() -> None:
    scheduler = Scheduler(PagePool(6, PAGE), max_step_tokens=16, max_sequences=3)
    tape = Tape()
    sequences = [Sequence([index] * 3, 3, SamplingParams(20)) for index in (1, 2, 3)]
    for sequence in sequences:
        scheduler.add(sequence)
    finished: list[Sequence] = []
    for _ in range(200):
        plan = scheduler.plan()
        scheduler.commit(plan, tape.run(plan))
        finished += [sequence for sequence in sequences if sequence.finish_reason and sequence not in finished]
    assert finished == sequences
    assert scheduler.counters.num_preemptions > 0
    assert sequences[0].most_computed == 22
    assert scheduler.counters.recomputed_tokens == scheduler.counters.computed_tokens - 3 * 22


@pytest.mark.parametrize("budget", [4, 8, 64])
def test_siblings_of_a_chunked_prompt_compute_it_once(budget: int) -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=budget, max_sequences=4)
    tape = Tape()
    for _ in range(4):
        scheduler.add(Sequence([1, 2, 3] * 13, 39, SamplingParams(1)))
    while scheduler.running or scheduler.waiting:
        plan = scheduler.plan()
        scheduler.commit(plan, tape.run(plan))
    assert 39 + 3 <= scheduler.counters.computed_tokens <= 39 + 3 * 3


def test_a_page_that_others_filled_is_read_and_not_written_again() -> None:
    scheduler = Scheduler(PagePool(8, PAGE), max_step_tokens=32, max_sequences=2)
    for _ in range(2):
        scheduler.add(Sequence([1, 2] * PAGE, 2 * PAGE, SamplingParams(1)))
    first, second = scheduler.plan().chunks
    assert (first.start, first.end, first.write_from) == (0, 8, 0)
    assert (second.start, second.end, second.write_from) == (7, 8, 8)


def test_the_interactive_are_served_before_the_batch_and_speculation_last() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=8, max_sequences=1)
    priorities: list[Priority] = ["background", "batch", "interactive", "batch"]
    sequences = [Sequence([index] * 5, 5, SamplingParams(3), priority=p) for index, p in enumerate(priorities)]
    for sequence in sequences:
        scheduler.add(sequence)
    assert [sequences.index(sequence) for sequence in TapeEngine(scheduler, Tape()).finish()] == [2, 1, 3, 0]


def test_the_interactive_take_the_place_of_the_batch_and_it_goes_on_afterwards() -> None:
    scheduler = Scheduler(PagePool(6, PAGE), max_step_tokens=16, max_sequences=2)
    tape = Tape()
    slow = [Sequence([index] * 5, 5, SamplingParams(9)) for index in (1, 2)]
    for sequence in slow:
        scheduler.add(sequence)
    plan = scheduler.plan()
    scheduler.commit(plan, tape.run(plan))
    urgent = Sequence([3] * 5, 5, SamplingParams(2), priority="interactive")
    scheduler.add(urgent)
    plan = scheduler.plan()
    assert [chunk.sequence for chunk in plan.chunks] == [slow[0], urgent]
    scheduler.check()
    scheduler.commit(plan, tape.run(plan))
    while scheduler.running or scheduler.waiting:
        plan = scheduler.plan()
        scheduler.commit(plan, tape.run(plan))
    assert [len(sequence.generated) for sequence in slow] == [9, 9]


def test_a_forks_last_page_is_copied_and_its_full_ones_are_shared() -> None:
    scheduler = Scheduler(PagePool(32, PAGE), max_step_tokens=32, max_sequences=4)
    parent = Sequence([1, 2] * 5, 10, SamplingParams(5))
    scheduler.add(parent)
    TapeEngine(scheduler, Tape()).finish()  # computes fourteen of its fifteen tokens: three pages and two tokens
    computed = scheduler.counters.computed_tokens
    for token in (7, 8):
        scheduler.add(Sequence([*parent.tokens[:14], token], 15, SamplingParams(1)))
    plan = scheduler.plan()
    assert [chunk.start for chunk in plan.chunks] == [14, 14]
    assert len(plan.transfers.copies) == scheduler.counters.num_copied_pages == 2
    assert scheduler.pool.num_referenced - scheduler.pool.num_held == 3
    assert scheduler.counters.computed_tokens == computed


@settings(max_examples=300, deadline=None)
@given(
    chance=st.randoms(use_true_random=False), num_pages=st.sampled_from([8, 12, 20]), num_steps_ahead=st.integers(0, 1)
)
def test_forks_of_a_step_are_copied_in_any_order_however_few_pages_there_are(
    chance: random.Random, num_pages: int, num_steps_ahead: int
) -> None:
    engine = TapeEngine(
        Scheduler(PagePool(num_pages, PAGE), max_step_tokens=64, max_sequences=8), Tape(), num_steps_ahead
    )
    prompts = [[chance.randrange(3) for _ in range(chance.randint(1, 12))] for _ in range(5)]
    for _ in range(40):
        prompt = chance.choice(prompts) + ([chance.randrange(3)] if chance.random() < 0.5 else [])
        engine.scheduler.add(Sequence(prompt, len(prompt), SamplingParams(chance.randint(1, 6))))
    assert len(engine.finish()) == 40


def test_a_sequence_that_is_given_the_page_it_would_copy_finds_it_filled() -> None:
    scheduler = Scheduler(PagePool(3, PAGE), max_step_tokens=32, max_sequences=1)
    parent = Sequence([1, 2] * 4, 8, SamplingParams(4))
    engine = TapeEngine(scheduler, Tape())
    scheduler.add(parent)
    engine.finish()  # two pages and three tokens
    scheduler.add(Sequence(parent.tokens[:11], 11, SamplingParams(1)))
    plan = scheduler.plan()
    assert [chunk.start for chunk in plan.chunks] == [10]
    assert plan.transfers.copies == []
    assert scheduler.counters.num_copied_pages == 0


def test_an_admitted_sequence_is_expected_to_become_as_long_as_those_before_it() -> None:
    scheduler = Scheduler(PagePool(12, PAGE), max_step_tokens=64, max_sequences=12)
    for index in range(3):
        scheduler.add(Sequence([index] * 3, 3, SamplingParams(20)))
    engine = TapeEngine(scheduler, Tape())
    engine.finish()
    for index in range(10, 22):
        scheduler.add(Sequence([index] * 3, 3, SamplingParams(20)))
    engine.step()
    assert len(scheduler.running) == 2  # six pages each
    before = scheduler.counters.num_preemptions
    engine.finish()
    assert scheduler.counters.num_preemptions == before


def test_a_guess_that_turns_out_to_be_wanted_goes_before_younger_ones_and_keeps_what_it_has() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=2)
    guesses = [Sequence([index] * 5, 5, SamplingParams(4), priority="background") for index in (1, 2, 3)]
    for sequence in guesses:
        scheduler.add(sequence)
    tape, plan = Tape(), scheduler.plan()
    scheduler.commit(plan, tape.run(plan))
    younger = Sequence([4] * 5, 5, SamplingParams(4))
    scheduler.add(younger)
    for wanted in guesses[1:]:  # one runs, one waits
        scheduler.promote(wanted, "batch")
    plan = scheduler.plan()
    assert [chunk.sequence for chunk in plan.chunks] == [guesses[1], guesses[2]]
    scheduler.commit(plan, tape.run(plan))
    TapeEngine(scheduler, tape).finish()
    assert [len(sequence.generated) for sequence in (*guesses, younger)] == [4, 4, 4, 4]


def test_a_preempted_sequence_waits_behind_an_older_guess_that_turned_out_to_be_wanted() -> None:
    scheduler = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=1)
    guess = Sequence([1] * 5, 5, SamplingParams(4), priority="background")
    younger = Sequence([2] * 5, 5, SamplingParams(4))
    for sequence in (guess, younger):
        scheduler.add(sequence)
    tape, plan = Tape(), scheduler.plan()
    scheduler.commit(plan, tape.run(plan))
    scheduler.promote(guess, "batch")
    urgent = Sequence([3] * 5, 5, SamplingParams(1), priority="interactive")
    scheduler.add(urgent)
    assert TapeEngine(scheduler, tape).finish() == [urgent, guess, younger]


def test_out_of_pages_a_guess_gives_way_however_old_it_is() -> None:
    scheduler = Scheduler(PagePool(6, PAGE), max_step_tokens=16, max_sequences=3)
    guess = Sequence([1] * 3, 3, SamplingParams(16), priority="background")
    wanted = [Sequence([index] * 3, 3, SamplingParams(9)) for index in (2, 3)]
    for sequence in (guess, *wanted):
        scheduler.add(sequence)
    assert TapeEngine(scheduler, Tape()).finish()[-1] is guess
    assert scheduler.counters.num_preemptions > 0
    assert scheduler.counters.computed_tokens - scheduler.counters.recomputed_tokens == 18 + 11 + 11


def test_a_long_prefill_leaves_a_token_for_each_sequence_behind_it_and_takes_all_others() -> None:
    scheduler, tape = Scheduler(PagePool(64, PAGE), max_step_tokens=8, max_sequences=8), Tape()
    decoding = [Sequence([index] * 2, 2, SamplingParams(20)) for index in (1, 2)]
    for sequence in decoding:
        scheduler.add(sequence)
    ahead = Sequence([3], 1, SamplingParams(20), priority="interactive")
    long = Sequence([4] * 30, 30, SamplingParams(20), priority="interactive")
    for sequence in (ahead, long):
        plan = scheduler.plan()
        scheduler.commit(plan, tape.run(plan))
        scheduler.add(sequence)
    plan = scheduler.plan()  # the long one is admitted to the room that is left
    scheduler.commit(plan, tape.run(plan))
    plan = scheduler.plan()
    assert plan.chunks.sequences == [ahead, long, *decoding]
    assert [end - start for start, end in zip(plan.chunks.starts, plan.chunks.ends, strict=True)] == [1, 5, 1, 1]


def test_the_last_two_tokens_of_a_prefill_leave_one_for_each_sequence_behind_it_too() -> None:
    scheduler, tape = Scheduler(PagePool(64, PAGE), max_step_tokens=4, max_sequences=4), Tape()
    decoding = [Sequence([index], 1, SamplingParams(20)) for index in (1, 2, 3)]
    for sequence in decoding:
        scheduler.add(sequence)
    plan = scheduler.plan()
    scheduler.commit(plan, tape.run(plan))
    scheduler.add(Sequence([4] * 3, 3, SamplingParams(20), priority="interactive"))
    plan = scheduler.plan()  # it is admitted to the one token that is left
    scheduler.commit(plan, tape.run(plan))
    chunks = scheduler.plan().chunks
    assert [end - start for start, end in zip(chunks.starts, chunks.ends, strict=True)] == [1, 1, 1, 1]


def test_a_sequence_has_the_likeliest_tokens_of_its_own_places_and_none_of_those_computed_after_its_end() -> None:
    scheduler, tape = Scheduler(PagePool(4, PAGE), max_step_tokens=8, max_sequences=1), Tape()
    stops = Sequence([1, 1], 2, SamplingParams(9), stop_token_ids=frozenset({0}))  # it is the first one sampled
    scheduler.add(stops)
    steps = []
    for token in (5, 6):  # the second step is planned before the first one has ended
        plan = scheduler.plan()
        steps.append((plan, replace(tape.run(plan), tops={0: ((token, -1.0),)})))
    for plan, result in steps:
        scheduler.commit(plan, result)
    assert stops.finish_reason == "stop"
    assert stops.top_logprobs == [((5, -1.0),)]


def test_a_sequence_with_nothing_to_compute_does_not_hold_up_those_behind_it() -> None:
    scheduler, tape = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=2), Tape()
    penalised = Sequence(
        [1] * 3, 3, SamplingParams(5, presence_penalty=1.0)
    )  # its next token depends on the one sampled
    free = Sequence([2] * 3, 3, SamplingParams(5))
    for sequence in (penalised, free):
        scheduler.add(sequence)
    first = scheduler.plan()
    result = tape.run(first)
    assert scheduler.plan().chunks.sequences == [free]
    scheduler.commit(first, result)


def test_cancelled_sequences_leave_with_the_next_plan_whether_they_run_or_wait() -> None:
    scheduler, tape = Scheduler(PagePool(64, PAGE), max_step_tokens=16, max_sequences=1), Tape()
    running, waiting = (Sequence([index] * 5, 5, SamplingParams(20)) for index in (1, 2))
    for sequence in (running, waiting):
        scheduler.add(sequence)
    plan = scheduler.plan()
    scheduler.commit(plan, tape.run(plan))
    for sequence in (running, waiting):
        scheduler.cancel(sequence)
    assert scheduler.plan().is_empty
    assert [sequence.finish_reason for sequence in (running, waiting)] == ["cancelled"] * 2
    assert scheduler.pool.num_free == 64


def test_a_sequence_that_arrives_complete_costs_nothing() -> None:
    scheduler = Scheduler(PagePool(4, PAGE), max_step_tokens=32, max_sequences=3)
    complete = Sequence([1, 2], 1, SamplingParams(1))
    complete.check_stop(2, 1)
    scheduler.add(complete)
    plan = scheduler.plan()
    assert scheduler.commit(plan, Tape().run(plan)) == [(complete, [], [], "length", 0, 0, 0.0)]
